"""Bring a task's store up to what Kafka has committed, before the task runs.

Each table goes from the offset that its store knows to the changelog's end: the high watermark, not
the last stable offset, so that a dead worker's transaction whose marker is still on its way is
waited for and not missed. Only committed records are applied. Every chunk is written with its
offset, so a restore that is interrupted goes on where it was. A table that *is* a topic is read up
to where it was at the commit, even if a slower reader of the same topic was behind; what comes
after it is input.

A store that is ahead of its changelog belongs to another topic, and one that is older than
tombstones are kept may lack deletions: it is wiped and restored from the start. Where that is not
there any more, or the changelog has lost more than the store has, there is no table to be had
(:mod:`engine.gaps`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from engine import crashpoint, gaps, incarnation, position
from engine.record import TP
from engine.task import TABLE
from tables.store import META

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from engine.edges import Edges, Position
    from engine.metrics import Metrics
    from engine.record import Batch
    from engine.table import TableHandle
    from engine.task import Task
    from tables.store import Change

log = logging.getLogger(__name__)

_SAY_EVERY = 100_000  # records


class _Span:
    """One topic partition to read into one task's table: [start, end)."""

    def __init__(self, task: Task, tp: TP, table: TableHandle, meta_key: bytes, end: int) -> None:
        self.task = task
        self.tp = tp
        self.table = table
        self.meta_key = meta_key
        self.end = end
        self.begin = self.last = 0  # of the topic as it is now
        raw = task.store.get("headrace.meta", meta_key)
        self.known = self.start = 0 if raw is None else int(raw)


async def restore(
    tasks: Sequence[Task],
    committed: Mapping[TP, Position | None],
    edges: Edges,
    metrics: Metrics,
    *,
    follow: bool = False,
    incomplete: bool = False,
) -> int:
    """Restore all tables of these tasks; return how many records that took.

    Args:
        follow: stop before transactions that are still open; there will be another time. Tables
            that cannot be whole are left alone.
        incomplete: take what there is of a changelog that has lost its beginning.

    Raises:
        InputLost: a changelog has lost what a store needs.
    """
    reader, began_ms = edges.log, edges.clock.now_ms()
    spans = await _spans(tasks, committed, edges, follow=follow)
    spans = _from_where(spans, edges.clock.now_ms(), follow=follow, incomplete=incomplete)
    by_tp = {span.tp: span for span in spans}
    total = sum(max(0, span.end - span.start) for span in spans)
    who = ", ".join(task.id for task in tasks)
    done = said = 0
    async for batch in reader.read({span.tp: (span.start, span.end) for span in spans}):
        span = by_tp[batch.tp]
        count = _apply(span, batch)
        crashpoint.reach("restore")
        metrics.restored(span.table.name, count)
        done += count
        if not follow:
            metrics.restoring(who, max(0, total - done))
        if done - said >= _SAY_EVERY:
            said = done
            log.info("task %s: restored %s of about %s records", who, f"{done:,}", f"{total:,}")
    if not follow:
        metrics.restoring(who, 0)
    if done:
        for task in tasks:
            task.store.write({META: [incarnation.current(began_ms)]})
    if done and not follow:
        log.info("task %s: restored %s records", who, f"{done:,}")
    return done


async def _spans(
    tasks: Sequence[Task], committed: Mapping[TP, Position | None], edges: Edges, *, follow: bool
) -> list[_Span]:
    """Find out what each table lacks."""
    tables = [
        (task, table, TP((table.changelog or table.source).name, task.partition))  # type: ignore[union-attr]
        for task in tasks
        for table in task.part.tables
    ]
    bounds = await edges.log.bounds([tp for _, _, tp in tables], stable=follow)
    spans = []
    for task, table, tp in tables:
        end = bounds[tp][1]
        if table.changelog is not None:
            spans.append(_Span(task, tp, table, f"changelog:{tp.topic}".encode(), end))
        else:
            at = committed.get(tp)
            read = 0 if at is None else position.unpack(at).ahead.get(TABLE, at.offset)
            span = _Span(task, tp, table, f"source:{tp.topic}".encode(), min(read, end))
            span.known = span.start = min(span.known, span.end)
            spans.append(span)
    if follow and any(span.known > bounds[span.tp][1] for span in spans):
        bounds = await edges.log.bounds(
            [span.tp for span in spans]
        )  # ahead of markers on their way?
    for span in spans:
        span.begin, span.last = bounds[span.tp]
    return spans


def _from_where(spans: list[_Span], now_ms: int, *, follow: bool, incomplete: bool) -> list[_Span]:
    """Decide where to begin; empty the stores that have to be made from the beginning.

    Raises:
        InputLost: see :func:`restore`.
    """
    foreign = {span.task.id for span in spans if _foreign(span) or _outdated(span, now_ms)}
    for span in spans:
        if span.task.id in foreign:
            span.start = 0
    short = [span for span in spans if _is_short(span)]
    if short and not incomplete:
        if not follow:
            raise gaps.shortened(short[0].tp, short[0].start, short[0].begin)
        left_alone = {span.task.id for span in short}
        spans = [span for span in spans if span.task.id not in left_alone]
    elif short:
        foreign |= {span.task.id for span in short}
    for task in {span.task.id: span.task for span in spans if span.task.id in foreign}.values():
        log.warning("task %s: its store does not fit the changelogs; restoring anew", task.id)
        task.store.clear()
    for span in spans:
        span.start = max(span.begin, 0 if span.task.id in foreign else span.start)
    return spans


def _foreign(span: _Span) -> bool:
    """Say whether the store's offset can come from this topic as it is now."""
    overtaken = span.table.changelog is None and 0 < span.known < span.begin
    return span.known > span.last or overtaken


def _is_short(span: _Span) -> bool:
    """Say whether a changelog has lost what the store lacks; the end of all is a marker."""
    marker = 1 if span.begin == span.last else 0
    return span.table.changelog is not None and span.start < span.begin - marker


def _outdated(span: _Span, now_ms: int) -> bool:
    """Say whether the span may lack tombstones; one offset is the marker of the last commit."""
    return span.end - span.known > 1 and incarnation.is_outdated(span.task.store, now_ms)


def _apply(span: _Span, batch: Batch) -> int:
    """Write one batch of a changelog, or of a table's topic, to the store."""
    if span.table.changelog is not None or span.table.source is None:
        keys, values = batch.keys, batch.values
    else:
        run, _ = span.table.source.decode(batch)
        keys, values = run.keys, run.values
    changes: list[Change] = [(k, v) for k, v in zip(keys, values, strict=True) if k is not None]
    rows = span.table.restored(changes)
    rows["headrace.meta"] = [(span.meta_key, b"%d" % batch.next_offset)]
    span.task.store.write(rows)
    return len(batch)
