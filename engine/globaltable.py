"""Global tables: a whole topic on each worker, for what all tasks need and nobody owns.

A worker reads all partitions of the topic before it joins the group, and follows them from then on,
outside of the group: so it needs no co-partitioning, and a lookup may be by any key. The store is
the worker's own, kept on its disk with the offsets that it is at; there is no changelog, the topic
is it.

Lookups are of the moment. An event that is done again, after a crash, may find a newer row than the
first time; what is committed is still committed once.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from engine import incarnation
from engine.context import context_for, current
from engine.errors import BrokerError, ConfigError
from engine.record import TP
from engine.table import K, Table, V
from tables.codec import Codec
from tables.errors import StoreCorrupted, StoreFailed
from tables.globaltable import GlobalPartition
from tables.store import META

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from engine.edges import Edges
    from engine.metrics import Metrics
    from engine.record import Batch
    from engine.topic import Topic
    from tables.store import Change, Store

log = logging.getLogger(__name__)

STORE = "global"
"""The name of the store that a worker's global tables share (a task's has a number)."""
LOOK_S = 0.25
"""Between two looks at the topics: so old is what a worker knows, and as long as reading takes."""
TROUBLE_S = 2.0
COUNT_S = 10.0
"""Between two looks at how many partitions the topics have."""


class GlobalTable(Table[K, V]):
    """A table that every task of every worker has whole. Read-only: it is its topic.

    Args:
        source: the topic, compacted; its number of partitions does not matter.
        cache_entries: so many decoded rows a worker keeps in memory; the rest is on its disk.
    """

    is_global = True

    def __init__(
        self, name: str, *, source: Topic, cache_entries: int = 100_000, **options: Any
    ) -> None:
        super().__init__(name, source=source, cache_entries=cache_entries, **options)
        of_topic = {"key_type": self.key_type, "value_type": self.value_type}
        for what, kind in of_topic.items():
            if options.get(what, kind) is not kind:
                raise ConfigError(
                    f"global table {name!r}: {what} is {kind} on topic {source.name}, and not "
                    f"{options[what]}: leave it out, or say what the topic's contract says"
                )

    def _here(self) -> Any:
        try:
            return current.get().world[self.name]  # type: ignore[union-attr]
        except (AttributeError, KeyError):
            context_for(f"global table {self.name!r}")  # says what is wrong
            raise ConfigError(
                f"global table {self.name!r} is not the app's: declare it with app.GlobalTable"
            ) from None

    def open(self, store: Store, emit: Any) -> Any:
        """Return the table on a worker's store."""
        assert self.source is not None
        contract = self.source.contract
        return GlobalPartition(
            self.name,
            store,
            key=self.key,
            value=Codec(contract.encode, contract.decode),
            cache_entries=self.cache_entries,
        )


class World:
    """The global tables of one worker.

    Attributes:
        tables: what the agents read, by the table's name.
    """

    def __init__(self, tables: Sequence[Table[Any, Any]], edges: Edges, metrics: Metrics) -> None:
        self.tables: dict[str, Any] = {}
        self._handles = tuple(tables)
        self._edges = edges
        self._metrics = metrics
        self._store: Store
        self._at: dict[TP, int] = {}
        self._owners: dict[str, Table[Any, Any]] = {}  # by topic
        self._counted_ms = 0.0
        self._turn = asyncio.Lock()
        self._following: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Read all of the topics, then follow them. Before that no event may be worked on.

        Raises:
            BrokerError: they cannot be read.
            StoreFailed: the disk does not take them.
        """
        if not self._handles:
            return
        self._store = self._edges.open_store(STORE, [table.name for table in self._handles])
        for table in self._handles:
            assert table.source is not None
            self.tables[table.name] = table.open(self._store, None)
            self._owners[table.source.name] = table
        try:
            await self._read_all()
        except StoreCorrupted as error:
            log.warning("global tables: %s", error)
            self._store.clear()
            await self._read_all()
        self._following = asyncio.get_running_loop().create_task(self._follow(), name="world")

    async def _read_all(self) -> None:
        """Bring the store to where the topics end, from where it was, if it was of these topics."""
        began_ms = self._edges.clock.now_ms()
        ids = await self._edges.admin.topic_ids(list(self._owners))
        notes: list[Change] = [
            (f"topic:{name}".encode(), id_.encode()) for name, id_ in ids.items()
        ]
        await self._count()
        bounds = await self._edges.log.bounds(list(self._at), stable=True)
        anew = incarnation.is_outdated(self._store, began_ms)
        anew = anew or any(self._store.get(META, key) not in {None, id_} for key, id_ in notes)
        if anew or any(self._misfits(tp, *bounds[tp]) for tp in self._at):
            self._store.clear()
            self._at = dict.fromkeys(self._at, 0)
        self._store.write({META: [*notes, incarnation.current(began_ms)]})
        done = await self._read_to(bounds)
        log.info("global tables: read %s records of %s", f"{done:,}", ", ".join(self._owners))

    def _misfits(self, tp: TP, first: int, end: int) -> bool:
        """Say whether what the store has of a partition cannot be gone on from."""
        at = self._at[tp]
        return at > end or 0 < at < first

    async def _count(self) -> None:
        """Find out which partitions there are."""
        self._counted_ms = self._edges.clock.elapsed_ms()
        counts = await self._edges.admin.partitions(list(self._owners))
        for name in self._owners:
            for number in range(counts.get(name, 0)):
                tp = TP(name, number)
                if tp not in self._at:
                    raw = self._store.get(META, self._note(tp))
                    self._at[tp] = 0 if raw is None else int(raw)

    async def look(self) -> None:
        """Bring the tables to where their topics are now.

        Raises:
            BrokerError: they cannot be read.
            ConfigError: a topic is not the one that it was; the worker must start anew.
        """
        if not self._handles:
            return
        async with self._turn:
            began_ms = self._edges.clock.now_ms()
            counting = self._edges.clock.elapsed_ms() - self._counted_ms > 1000 * COUNT_S
            if counting:
                await self._count()
            bounds = await self._edges.log.bounds(list(self._at), stable=True)
            for tp, (first, end) in bounds.items():
                if self._misfits(tp, first, end):
                    raise ConfigError(
                        f"{tp} of a global table has records {first} to {end}, and the worker is "
                        f"at {self._at[tp]}: the topic was created anew, or has lost records. "
                        "Restart the worker, which reads it anew"
                    )
            if await self._read_to(bounds) or counting:
                self._store.write({META: [incarnation.current(began_ms)]})

    async def _read_to(self, bounds: dict[TP, tuple[int, int]]) -> int:
        """Read every partition up to the end it is known to have; return how many records."""
        spans = {
            tp: (max(first, self._at[tp]), end)
            for tp, (first, end) in bounds.items()
            if self._at[tp] < end
        }
        done = 0
        async for batch in self._edges.log.read(spans):
            done += self._apply(batch)
        return done

    def _apply(self, batch: Batch) -> int:
        tp, table = batch.tp, self._owners[batch.tp.topic]
        assert table.source is not None
        run, checked = table.source.decode(batch)
        if checked.broken:
            index, violation = checked.broken[0]
            log.warning(
                "global table %s: %d records break their contract and are left out; the first is "
                "%s@%d: %s", table.name, len(checked.broken), tp, batch.offsets[index],
                violation.message,
            )  # fmt: skip
        pairs = zip(run.keys, run.values, strict=True)
        changes: list[Change] = [(key, value) for key, value in pairs if key is not None]
        note = self._note(tp), b"%d" % batch.next_offset
        self.tables[table.name].apply(changes, {META: [note]})
        self._metrics.restored(table.name, len(changes))
        self._at[tp] = batch.next_offset
        return len(batch)

    def _note(self, tp: TP) -> bytes:
        """Return under which key the store notes where it is; a table renamed is read anew."""
        return f"global:{self._owners[tp.topic].name}:{tp}".encode()

    async def _follow(self) -> None:
        """Look at the topics for ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.look()
            except (BrokerError, StoreFailed) as error:
                log.warning("the global tables do not follow for now: %s", error)
                await asyncio.sleep(TROUBLE_S)
            except StoreCorrupted as error:
                self._store.clear()
                raise ConfigError(
                    f"the global tables' store cannot be read and was emptied ({error}): restart "
                    "the worker, which reads them anew"
                ) from error

    def refuse(self, anew: Collection[str]) -> None:
        """Raise a ConfigError if a table's topic is among those that were created anew."""
        for name in sorted(self._owners.keys() & set(anew)):
            raise ConfigError(
                f"topic {name} of global table {self._owners[name].name!r} was created anew: "
                "restart the worker, which reads it anew"
            )

    def raise_failed(self) -> None:
        """Raise what ended the following, if anything has."""
        if self._following is not None and self._following.done():
            self._following.result()

    async def close(self) -> None:
        """Follow no more, and release the store."""
        following, self._following = self._following, None
        if following is not None:
            following.cancel()
            await asyncio.wait([following])
        if self.tables:
            self.tables = {}
            self._store.close()
