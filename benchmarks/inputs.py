"""What the engines read: written once a run, and shared by all rounds."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from agents.workload import Record, Workload
from benchmarks.cluster import Cluster
from benchmarks.engines import Engine
from benchmarks.jobs import Expected, Recomputation, closing_events

HEADRACE = "headrace"
RAW = "raw-events"
PROFILES = "user-profiles"
_WINDOWED = ("sessions", "tumbling", "main")


class Input(msgspec.Struct):
    """A topic of events, and what must come of it."""

    topic: str
    expected: Expected
    broken: int
    """How many of its records break the contract."""
    closing: list[Record]
    late: list[Record] | None = None
    """What is written only once the engine is up."""


class Inputs:
    """All inputs of a run.

    headrace reads `raw-events`, one in a hundred of them broken. The peers read the valid ones of
    them, from topics of their own: none of them has contracts, and an event that cannot be decoded
    stops most of them.
    """

    def __init__(self, cluster: Cluster, work: Workload) -> None:
        self.work = work
        self.topics = {RAW, PROFILES}
        self._cluster = cluster
        self._profiles: dict[bytes, bytes] = {}
        self._made: dict[str, Input] = {}

    async def open(self) -> None:
        """Write the profiles, to a broker that is up to speed."""
        await self._cluster.create(PROFILES)
        await self._cluster.warm(PROFILES)
        await self._cluster.load(PROFILES, self.work.profiles())
        self._profiles = {key: value for key, value, _ in self.work.profiles()}

    async def of(self, engine: Engine, share: float) -> Input:
        """Return an engine's input, written if it has not been."""
        count = int(self.work.events * share)
        topic = RAW if engine.name == HEADRACE else f"valid-{count}{'-late' if engine.late else ''}"
        if topic not in self._made:
            self._made[topic] = await self._make(topic, engine, count)
        given = self._made[topic]
        if engine.late:
            await self._cluster.create(topic)  # it was deleted with the round's other topics
        return given

    async def _make(self, topic: str, engine: Engine, count: int) -> Input:
        recomputation = Recomputation(self._profiles)
        closing = closing_events(self.work, self._cluster.partitions, count)
        records = self._records(engine, count, recomputation, closing)
        if engine.late:
            kept = list(records)
            return Input(topic, recomputation.result(len(kept)), 0, closing, kept)
        await self._cluster.create(topic)
        self.topics.add(topic)
        written = await self._cluster.load(topic, records)
        expected = recomputation.result(written)
        return Input(topic, expected, written - expected.valid, closing)

    def _records(
        self, engine: Engine, count: int, recomputation: Recomputation, closing: list[Record]
    ) -> Iterator[Record]:
        """The first events of the workload, then those that close all windows."""
        faults = {position for position, _ in self.work.faults()}
        taken = 0
        for number, record in enumerate(self.work.raw_events()):
            if taken == count:
                break
            if number not in faults:
                recomputation.add(record[1] or b"")
            elif engine.name != HEADRACE:
                continue
            taken += 1
            yield record
        for record in closing:
            recomputation.add(record[1] or b"")
            yield record

    async def write(self, given: Input) -> None:
        """Write an input that is to come late."""
        await self._cluster.load(given.topic, given.late or [])

    async def nudge(self, given: Input, job: str) -> None:
        """Write the closing events once more: they change no result but the passthrough's."""
        if job in _WINDOWED and not given.late:
            await self._cluster.load(given.topic, given.closing)
            given.expected.valid += len(given.closing)
