"""Counting the demo's results: by reading its topics as any consumer of committed records would.

Nothing here asks the engine what it has done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from engine.kafka.log import KafkaLog
from engine.record import TP
from engine.results import WINDOW_HEADER

if TYPE_CHECKING:
    from engine.config import Config
    from engine.record import Batch


class Tally(NamedTuple):
    """How many records each result has."""

    enriched: int
    unmatched: int
    dead_letters: int
    sessions: int
    counts: int
    conversions: int


class Topics(NamedTuple):
    """Where the results are; ``unmatched`` is a table's changelog."""

    enriched: str
    unmatched: str
    dead_letters: str
    sessions: str
    counts: str
    conversions: str


async def count(
    config: Config, topics: Topics, partitions: Callable[[str], int], *, updates: bool
) -> Tally:
    """Count everything that is in the topics.

    Args:
        updates: sessions were emitted at each change: count those that are alive at the end.
    """
    log = KafkaLog(config)

    async def fold(topic: str, add: Callable[[Batch], None]) -> None:
        tps = [TP(topic, number) for number in range(partitions(topic))]
        async for batch in log.read(await log.bounds(tps)):
            add(batch)

    async def size(topic: str) -> int:
        sizes: list[int] = []
        await fold(topic, lambda batch: sizes.append(len(batch)))
        return sum(sizes)

    try:
        alive, last = _Alive(), _Last()
        await fold(topics.unmatched, last.add)
        if updates:
            await fold(topics.sessions, alive.add)
        return Tally(
            enriched=await size(topics.enriched),
            unmatched=last.sum(),
            dead_letters=await size(topics.dead_letters),
            sessions=len(alive.windows) if updates else await size(topics.sessions),
            counts=await size(topics.counts),
            conversions=await size(topics.conversions),
        )
    finally:
        await log.close()


class _Alive:
    """Sessions of a topic of updates: a null value takes one away again."""

    def __init__(self) -> None:
        self.windows: set[tuple[bytes | None, bytes]] = set()

    def add(self, batch: Batch) -> None:
        for key, value, headers in zip(batch.keys, batch.values, batch.headers, strict=True):
            window = (key, dict(headers)[WINDOW_HEADER])
            if value is None:
                self.windows.discard(window)
            else:
                self.windows.add(window)


class _Last:
    """The last number of each key in each partition of a changelog."""

    def __init__(self) -> None:
        self._held: dict[tuple[TP, bytes | None], int] = {}

    def add(self, batch: Batch) -> None:
        for key, value in zip(batch.keys, batch.values, strict=True):
            self._held[batch.tp, key] = 0 if value is None else msgspec.msgpack.decode(value)

    def sum(self) -> int:
        return sum(self._held.values())


async def sizes(log: KafkaLog, topics: Iterable[str], partitions: int) -> dict[str, int]:
    """Return about how many records topics hold: transaction markers count too."""
    held = dict.fromkeys(topics, 0)
    bounds = await log.bounds([TP(t, number) for t in held for number in range(partitions)])
    for tp, (first, end) in bounds.items():
        held[tp.topic] += end - first
    return held
