"""A checker that cannot fail is worthless: engines with one mistake each, and what notices it.

Each mutant is the engine with one attribute swapped for a wrong one. Some are mistakes that it had
until the simulation found them. It prints which invariant caught it and how many seeds that took.
"""

import asyncio
import inspect
from contextlib import contextmanager

import pytest

from engine.agent import Runner
from engine.assignment import Assignment
from engine.checkpoint import Checkpoint
from engine.context import current
from engine.feed import Feed
from engine.kafka.consumer import KafkaSource
from engine.kafka.produce import Producing, Refused
from engine.kafka.producer import KafkaOutlet, Membership
from engine.record import Batch
from engine.task import Task
from tables.window import WindowPartition
from tests.simulation.simulated_edges import SimulatedLog
from tests.simulation.simulation import Violation, simulate

SEEDS = 400


@contextmanager
def swapped(owner, name, wrong):
    """Put something wrong in the place of an attribute."""
    right = owner.__dict__[name]
    setattr(owner, name, wrong(right) if inspect.isfunction(wrong) else wrong)
    try:
        yield
    finally:
        setattr(owner, name, right)


def not_looked_at(send):
    """A batch that a leader refused counts as sent."""

    async def wrong(self, batches):
        try:
            return await send(self, batches)
        except Refused:
            return dict.fromkeys(batches, 0)

    return wrong


def store_first(deliver):
    """The store is written before Kafka has the transaction."""

    async def wrong(self, cuts, membership):
        for cut in cuts:
            cut.task.store.write(cut.store)
        await deliver(self, cuts, membership)

    return wrong


def no_new_epoch(open_outlet):
    """After a commit of unknown outcome the same producer goes on."""

    async def wrong(self):
        if self._producer == (-1, -1):
            await open_outlet(self)
        else:
            await self.close()
            await self._connect()

    return wrong


def in_two_writes(committed):
    """The changelog offset and the data it stands for are not one write."""

    def wrong(self, cut, ends):
        meta = [(f"changelog:{tp.topic}".encode(), b"%d" % ends[tp]) for tp in cut.changelogs]
        self.store.write({"headrace.meta": meta})
        committed(self, cut, ends)

    return wrong


def acknowledged_anyway(_):
    """An event on which an agent raises counts as done."""

    async def wrong(self):
        current.set(self.context)
        while True:
            try:
                result = self.agent.fun(self._stream())
                await (self._collect(result) if inspect.isasyncgen(result) else result)
            except ArithmeticError:
                await asyncio.sleep(0)
            except LookupError:
                await asyncio.sleep(0)

    return wrong


def no_tombstone(close):
    """A window that closes stays in the store and in the changelog."""

    def wrong(self, start):
        close(self, start)
        self._gone.clear()

    return wrong


def no_member(commit_offsets):
    """Offsets go out without generation and member id: Kafka checks nothing."""

    async def wrong(self, transaction):
        await commit_offsets(self, transaction._replace(membership=Membership(-1, "")))

    return wrong


def never_stale(_):
    """What a worker holds is taken for current after a rebalance, whoever had it meanwhile."""
    return lambda self, key, committed: True


def membership_of_the_moment(deliver):
    """A cut goes out as whatever member the consumer is by then."""

    async def wrong(self, cuts, _):
        await deliver(self, cuts, self._edges.source.membership())

    return wrong


def set_back(_):
    """A consumer's position may go back behind what it has done."""

    def wrong(self, tp, offset):
        self._done[tp] = offset

    return wrong


def beyond_the_end(_):
    """A table that is a topic is restored beyond the committed position."""
    return lambda self, end: self


def unstable_positions(_):
    """Positions are read without waiting for transactions that are open on them."""

    async def wrong(self, tps):
        await asyncio.sleep(0.001)
        return {tp: self._cluster.group.committed.get(tp) for tp in tps}

    return wrong


def stable_bounds(_):
    """A changelog is restored to its last stable offset: a marker on its way is not waited for."""

    async def wrong(self, tps, *, stable=False):
        await asyncio.sleep(0.001)
        return {tp: (0, self._cluster.partitions[tp].stable) for tp in tps}

    return wrong


MUTANTS = {
    "a refused batch is not looked at": (Producing, "send", not_looked_at),
    "the store is written first": (Checkpoint, "_deliver", store_first),
    "no InitProducerId on starting over": (KafkaOutlet, "open", no_new_epoch),
    "offset and data in two writes": (Task, "committed", in_two_writes),
    "a failing event is acknowledged": (Runner, "_run", acknowledged_anyway),
    "no tombstone for a closed window": (WindowPartition, "_close", no_tombstone),
    "offsets without a member": (KafkaOutlet, "_commit_offsets", no_member),
    "a stale task is kept": (Assignment, "_is_current", never_stale),
    "unstable positions": (KafkaSource, "_stable_positions", unstable_positions),
    "restored to the stable offset": (SimulatedLog, "bounds", stable_bounds),
    "the membership of the moment": (Checkpoint, "_deliver", membership_of_the_moment),
    "a position goes back": (Feed, "resume_at", set_back),
    "restored beyond the position": (Batch, "before", beyond_the_end),
}

caught = {}


@pytest.mark.slow
@pytest.mark.timeout(280)
@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught(name):
    with swapped(*MUTANTS[name]):
        for seed in range(SEEDS):
            try:
                simulate(seed)
            except Violation as violation:
                caught[name] = violation.invariant, seed + 1
                print(f"{name:40} {violation.invariant}  {seed + 1:4} seeds  {violation}"[:160])
                return
    pytest.fail(f"no invariant noticed in {SEEDS} seeds: {name}")


def test_the_table_of_mutants():
    """Print what was caught by what."""
    for name, (invariant, seeds) in caught.items():
        print(f"{name:40} {invariant}  {seeds:4} seeds")
