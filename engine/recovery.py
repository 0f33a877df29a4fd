"""Bring a task's store up to what Kafka has committed, before the task runs.

Each table goes from the offset that its store knows to the changelog's end: the high watermark, not
the last stable offset, so that a dead worker's transaction whose marker is still on its way is
waited for and not missed. Only committed records are applied. Every chunk is written with its
offset, so a restore that is interrupted goes on where it was. A table that *is* a topic is read up
to where it was at the commit, even if a slower reader of the same topic was behind; what comes
after it is input.

A store that is ahead of its changelog, or behind its beginning, belongs to another topic: it is
wiped and restored from the start.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from engine import crashpoint, position
from engine.record import TP
from engine.task import TABLE

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.edges import Log, Position
    from engine.metrics import Metrics
    from engine.record import Batch
    from engine.table import TableHandle
    from engine.task import Task
    from tables.store import Change

log = logging.getLogger(__name__)

_SAY_EVERY = 100_000  # records


class _Span:
    """One topic partition to read into one table: [start, end)."""

    def __init__(self, tp: TP, table: TableHandle, meta_key: bytes, start: int, end: int) -> None:
        self.tp = tp
        self.table = table
        self.meta_key = meta_key
        self.start = start
        self.end = end


async def restore(
    task: Task,
    committed: dict[TP, Position | None],
    reader: Log,
    metrics: Metrics,
    *,
    progress: Callable[[str, int, int], None] | None = None,
) -> int:
    """Restore all tables of a task; return how many records that took.

    Args:
        progress: told the task's id, records done, and records to do (an upper bound).
    """
    spans = await _spans(task, committed, reader)
    total = sum(max(0, span.end - span.start) for span in spans)
    done = said = 0
    for span in spans:
        async for batch in reader.read(span.tp, span.start, span.end):
            count = _apply(task, span, batch)
            crashpoint.reach("restore")
            metrics.restored(span.table.name, count)
            done += count
            if done - said >= _SAY_EVERY:
                said = done
                log.info("task %s: restored %s of about %s records", task.id, f"{done:,}", total)
                if progress is not None:
                    progress(task.id, done, total)
    if done:
        log.info("task %s: restored %s records", task.id, f"{done:,}")
    return done


async def _spans(task: Task, committed: dict[TP, Position | None], reader: Log) -> list[_Span]:
    """Find out what each table lacks."""
    logged = {
        TP(table.changelog.name, task.partition): table
        for table in task.part.tables
        if table.changelog is not None
    }
    sourced = {
        TP(table.source.name, task.partition): table
        for table in task.part.tables
        if table.source is not None
    }
    bounds = await reader.bounds([*logged, *sourced])
    spans = []
    for tp, table in logged.items():
        meta_key = f"changelog:{tp.topic}".encode()
        spans.append(_Span(tp, table, meta_key, _known(task, meta_key), bounds[tp][1]))
    for tp, table in sourced.items():
        meta_key = f"source:{tp.topic}".encode()
        at = committed.get(tp)
        read = 0 if at is None else position.unpack(at).ahead.get(TABLE, at.offset)
        end = min(read, bounds[tp][1])
        spans.append(_Span(tp, table, meta_key, min(_known(task, meta_key), end), end))
    if any(_foreign(span, bounds[span.tp]) for span in spans):
        log.warning("task %s: its store does not fit the changelogs; restoring anew", task.id)
        task.reset_store()
        for span in spans:
            span.start = 0
    for span in spans:
        span.start = max(span.start, bounds[span.tp][0])
    return spans


def _known(task: Task, meta_key: bytes) -> int:
    raw = task.store.get("headrace.meta", meta_key)
    return 0 if raw is None else int(raw)


def _foreign(span: _Span, bounds: tuple[int, int]) -> bool:
    """Say whether the store's offset can come from this topic as it is now."""
    begin, end = bounds
    return span.start > end or 0 < span.start < begin


def _apply(task: Task, span: _Span, batch: Batch) -> int:
    """Write one batch of a changelog, or of a table's topic, to the store."""
    changes: list[Change] = [
        (key, value) for key, value in zip(batch.keys, batch.values, strict=True) if key is not None
    ]
    if span.table.source is not None:
        run, _ = span.table.source.decode(batch)
        changes = [(k, v) for k, v in zip(run.keys, run.values, strict=True) if k is not None]
    rows = task.tables[span.table.name].restore(changes)
    rows["headrace.meta"] = [(span.meta_key, b"%d" % batch.next_offset)]
    task.store.write(rows)
    return len(batch)
