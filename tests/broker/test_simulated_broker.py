"""The simulated cluster answers as Apache Kafka does, in what the simulation rests on."""

import asyncio
import uuid

import pytest

from engine.config import make
from engine.kafka.assignor import Group, assignor_for
from engine.kafka.consumer import KafkaSource
from engine.kafka.log import KafkaLog
from engine.kafka.producer import KafkaOutlet
from engine.record import TP
from engine.torture import observer
from tests.simulation.faults import CALM, Faults
from tests.simulation.simulated_edges import (
    SimulatedClock,
    SimulatedLog,
    SimulatedOutlet,
    SimulatedSource,
)
from tests.simulation.simulated_kafka import Cluster
from tests.simulation.simulated_loop import Process, SimulatedLoop
from tests.simulation.traces import TRACES, Party

PATIENCE_S = 20
SAID = {
    "a_stale_generation": [0, 22, 25, 0, 0, 0],
    "a_name_that_is_taken": [0, False, 82, 0, 0],
    "offsets_of_an_open_transaction": [(-1, 0), 88, (5, 0), (5, 0)],
    "a_new_producer_of_the_same_name": [
        (0, 0), (True, 2), "fenced", "fenced", "fenced", 0, [b"c"],
    ],
    "the_last_stable_offset": [(0, 4), (5, 5), [b"c"]],
    "an_end_twice": [48, 0, 0, 48, 0, 0, 48],
    "sequence_numbers": [48, (0, 0), (0, 0), 45, (0, 2), [b"a", b"b", b"c"]],
}  # fmt: skip
"""Error codes: 22 ILLEGAL_GENERATION, 25 UNKNOWN_MEMBER_ID, 45 OUT_OF_ORDER_SEQUENCE_NUMBER,
48 INVALID_TXN_STATE, 82 FENCED_INSTANCE_ID, 88 UNSTABLE_OFFSET_COMMIT."""


class World:
    """What a trace runs in."""

    def __init__(self, app, bootstrap):
        self.app = app
        self.input, self.output = TP(f"{app}-in", 0), TP(f"{app}-out", 0)
        settings = {
            "id": app, "broker": bootstrap, "session_timeout_ms": 6000,
            "transaction_timeout_ms": 60_000, "compression": "none",
        }  # fmt: skip
        self.config = make(settings, {})
        self.log = self.make_log()
        self.parties = []

    async def party(self, instance, producer=None):
        """Return a member of the group that has joined, with a producer."""
        assignor = assignor_for([Group((self.input.topic,), stateful=False)])
        name = f"{self.app}-{producer or instance}"
        party = Party(self.app, name, self.make_source(assignor, instance), self.make_outlet(name))
        self.parties.append(party)
        await party.outlet.open()
        known = asyncio.Event()

        async def revoked():
            known.clear()

        await party.source.start(
            [self.input.topic], revoked=revoked, assigned=lambda _: known.set()
        )
        await known.wait()
        return party

    async def rebalanced(self, parties):
        """Wait until all have the same generation."""
        await self.until(lambda: len({p.source.membership().generation for p in parties}) == 1)

    async def until(self, condition):
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                await asyncio.sleep(0.02)

    async def until_stable(self, party):
        """Wait until the committed offset can be told."""
        async with asyncio.timeout(PATIENCE_S):
            while (await party.committed(self.input))[1]:
                await asyncio.sleep(0.02)

    async def ends(self, tp, *, until):
        """Return the last stable offset and the high watermark, once they are so or never are."""
        for _ in range(100):
            stable = (await self.log.bounds([tp], stable=True))[tp][1]
            ends = stable, (await self.log.bounds([tp]))[tp][1]
            if ends == until:
                break
            await asyncio.sleep(0.05)
        return ends

    async def decided(self, tp):
        """Wait until no transaction is open on a partition."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                stable = await self.log.bounds([tp], stable=True)
                if stable == await self.log.bounds([tp]):
                    return
                await asyncio.sleep(0.02)

    async def read(self, tp):
        """Return the committed values of a partition."""
        _, end = (await self.log.bounds([tp]))[tp]
        return [value async for batch in self.log.read({tp: (0, end)}) for value in batch.values]

    async def close(self):
        for party in self.parties:
            await party.source.close()
            await party.outlet.close()
        await self.log.close()


class Kafka(World):
    def make_log(self):
        return KafkaLog(self.config)

    def make_source(self, assignor, instance):
        return KafkaSource(self.config, assignor, instance)

    def make_outlet(self, name):
        return KafkaOutlet(self.config, name)


class Simulated(World):
    def __init__(self, loop):
        faults = Faults(0, loop, CALM._asdict())
        self.place = Cluster(loop, faults), Process("party")
        super().__init__("traced", "127.0.0.1:1")
        for tp in (self.input, self.output):
            self.place[0].create(tp.topic, 1)

    def make_log(self):
        return SimulatedLog(*self.place)

    def make_source(self, assignor, instance):
        return SimulatedSource(self.config, assignor, instance, *self.place)

    def make_outlet(self, name):
        return SimulatedOutlet(self.config, name, SimulatedClock(self.place[0].loop), *self.place)


@pytest.mark.broker
@pytest.mark.parametrize("trace", TRACES, ids=lambda trace: trace.__name__)
async def test_kafka_says_so(trace, kafka):
    app = f"traced-{uuid.uuid4().hex[:8]}"
    await observer.create(kafka.bootstrap, {f"{app}-in": {}, f"{app}-out": {}}, 1)
    world = Kafka(app, kafka.bootstrap)
    try:
        assert await trace(world) == SAID[trace.__name__]
    finally:
        await world.close()


@pytest.mark.parametrize("trace", TRACES, ids=lambda trace: trace.__name__)
def test_the_simulated_cluster_says_the_same(trace):
    loop = SimulatedLoop(0)
    world = Simulated(loop)

    async def run():
        try:
            return await trace(world)
        finally:
            await world.close()

    try:
        assert loop.run_until_complete(run()) == SAID[trace.__name__]
    finally:
        loop.close()
