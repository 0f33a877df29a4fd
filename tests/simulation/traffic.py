"""A calm run of some size: what the workers ask of the cluster, counted by kind.

It is what the model of :mod:`benchmarks.scale` is held against: the same engine, the same producer,
and nothing that goes wrong.
"""

import asyncio
import logging
from collections import Counter
from typing import NamedTuple

from engine import App
from engine.loop import Engine
from engine.record import TP
from tests.simulation.faults import CALM, Faults
from tests.simulation.simulated_edges import WALL_MS, Disk, simulated_edges
from tests.simulation.simulated_kafka import Cluster
from tests.simulation.simulated_loop import Process, SimulatedLoop

HEARTBEAT_S = 5
"""What the simulated member does: so many heartbeats in a session timeout."""


def kept_app():
    """An app whose results stay in the partition of their input: an output, a changelog."""
    app = App("kept")
    clicks = app.topic("clicks", key_type=str, value_type=int)
    users = app.Table("users", source=app.topic("users", key_type=str, compacting=True))
    sums = app.Table("sums", default=int, key_type=str, value_type=int)
    out = app.topic("out", key_type=str)

    @app.agent(clicks, sink=[out])
    async def add(stream):
        async for key, number in stream.items():
            sums[key] += number
            yield [sums[key], users.get(key)]

    return app


def moved_app():
    """An app that re-keys: any partition of a topic in between, then a changelog."""
    app = App("moved")
    clicks = app.topic("clicks", key_type=str, value_type=int)
    sums = app.Table("sums", default=int, key_type=int, value_type=int)

    @app.agent(clicks)
    async def add(stream):
        async for number in stream.group_by(lambda number: number, name="number"):
            sums[number] += 1

    return app


class Counted(NamedTuple):
    """What was counted.

    Attributes:
        joining: requests, by kind, from the first worker's start until every task was at work.
        steady: requests a second, by kind, after that.
        markers: partitions that got a transaction's marker, a second; offsets are one.
        positions: offsets that were committed, a second.
        rebalance_s: from one more worker's start until the group was stable again.
    """

    joining: Counter
    steady: dict
    markers: float
    positions: float
    rebalance_s: float


class Traffic:
    """See the module; call :meth:`run` once.

    Args:
        each_s: between two records of one input partition.
        for_s: how long the steady state is watched.
    """

    def __init__(self, app, partitions, replicas, *, each_s=0.1, for_s=10.0, **settings):
        self.app, self.partitions, self.replicas = app, partitions, replicas
        self.each_s, self.for_s = each_s, for_s
        self.loop = SimulatedLoop(0)
        weather = {name: getattr(CALM, name) for name in CALM._fields}
        self.cluster = Cluster(self.loop, Faults(0, self.loop, weather))
        self.asked = Counter()
        self.ended = Counter()
        self.engines, self.processes = [], []
        self.config = app.settings(compression="none", collect_after=0, stall_ms=0, **settings)

    def run(self):
        """Run it; return what was counted."""
        logging.disable(logging.CRITICAL)
        asyncio.set_event_loop(self.loop)
        ask, end = self.cluster.ask, self.cluster._end

        def counted(process, what, work):
            self.asked[what] += 1
            return ask(process, what, work)

        def ended(found, state):
            self.ended["markers"] += len(found.partitions) + found.offsets
            claim = self.cluster.group.pending.get(found.id)
            self.ended["positions"] += len(claim.positions) if claim else 0
            end(found, state)

        self.cluster.ask, self.cluster._end = counted, ended
        try:
            return self.loop.run_until_complete(self._direct())
        finally:
            self.cluster.faults.over = True
            self.loop.bury(self.processes)
            asyncio.set_event_loop(None)
            self.loop.close()
            logging.disable(logging.NOTSET)

    async def _direct(self):
        self.cluster.default_width = self.partitions
        for topic in self.app.topology().inputs.values():
            if not topic.internal:
                self.cluster.create(topic.name, self.partitions)
        for _ in range(self.replicas):
            self._start()
        await self._settled()
        joining = Counter(self.asked)
        feeding = asyncio.create_task(self._feed())
        await asyncio.sleep(2)
        self.asked.clear()
        self.ended.clear()
        await asyncio.sleep(self.for_s)
        steady = {what: count / self.for_s for what, count in self.asked.items()}
        markers, positions = (self.ended[what] / self.for_s for what in ("markers", "positions"))
        rebalance_s = await self._rebalance()
        feeding.cancel()
        return Counted(joining, steady, markers, positions, rebalance_s)

    def _start(self):
        number = len(self.engines)
        process, disk = Process(f"w{number}"), Disk(f"disk-{number}")
        topology = self.app.topology()
        edges = simulated_edges(self.config, topology.parts, self.cluster, process, disk)
        engine = Engine(self.config, topology, edges)
        self.engines.append(engine)
        self.processes.append(process)
        self.loop.spawn(process, engine.run(), process.name)

    async def _settled(self):
        """Wait until every task is at work."""
        tasks = sum(self.partitions for _ in self.app.topology().parts)
        while True:
            await asyncio.sleep(0.01)
            ready = [engine for engine in self.engines if engine.ready.is_set()]
            at_work = sum(len(engine.assignment.working()) for engine in ready)
            generations = {engine.assignment._membership.generation for engine in ready}
            if (
                len(ready) == len(self.engines)
                and at_work == tasks
                and generations == {self.cluster.group.generation}
                and self.cluster.group.state == "stable"
                and not any(engine.assignment.coming or engine._moving for engine in ready)
            ):
                return

    async def _rebalance(self):
        """Let one more worker come; return how long the group took (s)."""
        began = self.loop.time()
        self._start()
        await self._settled()
        return self.loop.time() - began

    async def _feed(self):
        number = 0
        inputs = [topic for topic in self.app.topology().inputs.values() if not topic.internal]
        while True:
            for partition in range(self.partitions):
                for topic in inputs:
                    now_ms = WALL_MS + int(self.loop.time() * 1000)
                    row = (b"k%d" % partition, b"%d" % number, now_ms, ())
                    self.cluster.produce(TP(topic.name, partition), row)
                    number += 1
            await asyncio.sleep(self.each_s)
