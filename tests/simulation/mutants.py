"""A checker that cannot fail is worthless: engines with one mistake each, and what notices it.

Each mutant is the engine with one attribute swapped for a wrong one. Six are the classic ways to
lose exactly-once; some are mistakes that it had until the simulation found them.
"""

import asyncio
import inspect
import logging
import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from types import MappingProxyType
from typing import NamedTuple

from aiokafka.protocol.transaction import EndTxnRequest

from engine.agent import Runner
from engine.assignment import Assignment
from engine.checkpoint import Checkpoint
from engine.context import current
from engine.feed import Feed
from engine.kafka.consumer import KafkaSource
from engine.kafka.produce import Producing, Refused, together
from engine.kafka.producer import _TXN, KafkaOutlet, Membership
from engine.record import Batch
from engine.task import Task
from tables.window import WindowPartition
from tests.simulation.faults import CALM
from tests.simulation.simulated_edges import SimulatedLog
from tests.simulation.simulation import Simulation, Violation

SEEDS_MAX = 400


@contextmanager
def swapped(mutant):
    """Put something wrong in the place of an attribute, for a while."""
    owner, name, wrong = mutant.owner, mutant.attribute, mutant.wrong
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


def ended_before_sent(_):
    """Offsets and the end go out while the records are still on their way."""

    async def wrong(self, transaction):
        rows = transaction.rows
        batches = {
            tp: self._encode_next(rows[tp], sequence=self._sequences.get(tp, 0)) for tp in rows
        }
        for tp in rows:
            self._sequences[tp] = self._sequences.get(tp, 0) + len(rows[tp])
        await together(call() for call in self._announce(transaction))
        sending = asyncio.create_task(Producing(self._client, self._id).send(batches))
        if transaction.positions:
            await self._commit_offsets(transaction)
        await self._ask(
            _TXN,
            lambda: EndTxnRequest(self._id, *self._producer, True),  # noqa: FBT003
            lambda answer: [(answer.error_code, None)],
            "EndTxn",
        )
        return await sending

    return wrong


def store_first(deliver):
    """The store is written before Kafka has the transaction."""

    async def wrong(self, cuts, membership):
        for cut in cuts:
            cut.task.store.write(cut.store)
        await deliver(self, cuts, membership)

    return wrong


def no_new_epoch(open_outlet):
    """After a commit of unknown outcome the same producer goes on.

    Zombies are refused by the group's generation all the same. What breaks is the rest: what the
    last transaction left open becomes part of the next one.
    """

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


def of_the_moment(deliver):
    """A cut goes out as whatever member the consumer is by then."""

    async def wrong(self, cuts, _):
        await deliver(self, cuts, self._edges.source.membership())

    return wrong


def read_is_done(_):
    """What a view has read ahead of its turn counts as done."""

    def wrong(self):
        return {**self._done, **self._hold}

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


def left_to_itself(_):
    """A commit under way goes on while the worker starts over."""

    async def wrong(self):
        self._flight = None

    return wrong


class Mutant(NamedTuple):
    """A mistake, as it would be written down in a review.

    Attributes:
        under: weather that brings it out; without it, it would take thousands of seeds.
    """

    name: str
    owner: type
    attribute: str
    wrong: object
    under: Mapping[str, object] = MappingProxyType({})


FROZEN = {
    "kinds": ("freeze",), "point": "after Heartbeat", "point_rate": 0.1, "deed": "freeze",
}  # fmt: skip
"""Workers come back from the dead."""

RESTLESS = CALM._replace(
    kinds=("join",), point="after JoinGroup", point_rate=0.4, deed="leave",
    cursed_slow="SyncGroup", cursed_rate=1.0,
)._asdict()  # fmt: skip
"""Workers leave while it is not said yet who gets what."""

CONFUSED = {"fetch_refused": 0.03, "request_refused": 0.5, "cursed_slow": "FindCoordinator"}
"""Reading fails while a commit looks for its coordinators."""

SEEDED = (
    Mutant("skip the gather", Producing, "send", not_looked_at),
    Mutant("commit before flush", KafkaOutlet, "_commit", ended_before_sent),
    Mutant("no InitProducerId", KafkaOutlet, "open", no_new_epoch),
    Mutant("split data and offset", Task, "committed", in_two_writes),
    Mutant("ack in finally", Runner, "_run", acknowledged_anyway),
    Mutant("no tombstone on expiry", WindowPartition, "_close", no_tombstone),
)
"""The ways to lose exactly-once that every engine of this kind must exclude."""

FOUND = (
    Mutant("the store is written first", Checkpoint, "_deliver", store_first),
    Mutant("offsets without a member", KafkaOutlet, "_commit_offsets", no_member),
    Mutant("a stale task is kept", Assignment, "_is_current", never_stale, FROZEN),
    Mutant("unstable positions", KafkaSource, "_stable_positions", unstable_positions),
    Mutant("restored to the stable offset", SimulatedLog, "bounds", stable_bounds),
    Mutant("the membership of the moment", Checkpoint, "_deliver", of_the_moment, RESTLESS),
    Mutant("a position goes back", Feed, "resume_at", set_back),
    Mutant("what is read ahead is done", Feed, "positions", read_is_done),
    Mutant("restored beyond the position", Batch, "before", beyond_the_end),
    Mutant("a commit is left to itself", Checkpoint, "abandon", left_to_itself, CONFUSED),
)
"""Some are mistakes that the engine had."""


class Verdict(NamedTuple):
    """What became of a mutant; no violation: it was not caught."""

    mutant: str
    violation: str
    seeds: int

    def __str__(self):
        invariant, _, message = self.violation.partition(": ")
        return f"{self.mutant:30} | {invariant or 'none':9} | {self.seeds:5} | {message[:90]}"


HEADING = f"{'mutant':30} | invariant | seeds | what it said"


def hunt(mutant, seeds=SEEDS_MAX):
    """Run seeds on a mutant until one notices it."""
    logging.disable(logging.CRITICAL)
    with swapped(mutant):
        for seed in range(seeds):
            try:
                Simulation(seed, under=mutant.under).run()
            except Violation as violation:
                return Verdict(mutant.name, str(violation), seed + 1)
    return Verdict(mutant.name, "", seeds)


def hunt_all(mutants=SEEDED + FOUND, jobs=None, seeds=SEEDS_MAX):
    """Yield the verdict on each mutant, in parallel processes."""
    by_name = {mutant.name: mutant for mutant in mutants}
    with ProcessPoolExecutor(jobs or os.cpu_count()) as pool:
        yield from pool.map(hunt_named, by_name, [seeds] * len(by_name))


def hunt_named(name, seeds):
    """Do it in another process, which knows the mutants, too."""
    return hunt(next(mutant for mutant in SEEDED + FOUND if mutant.name == name), seeds)
