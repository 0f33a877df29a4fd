"""Results of windowed tables, on their way to the sink topic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.context import context_for
from engine.operator import Operator
from engine.table import Window

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.outbox import Outbox
    from engine.table import Emit, TableHandle

WINDOW_HEADER = "headrace.window"
"""The header that says a result's window, where the app asks for it: ``start,end`` in ms."""

LATE_HEADER = "headrace.late"
"""The header of a late event, beside those that it came with: the table that did not take it."""


def late_writer(table: TableHandle) -> Callable[[], None] | None:
    """Return what a table calls when the event in hand is late for it; None if nobody asks.

    The record goes on as it came: key, value, timestamp and headers.
    """
    topic = table.late_topic
    if topic is None:
        return None
    header = (LATE_HEADER, table.name.encode())
    whose = f"table {table.name!r}"

    def write() -> None:
        context = context_for(whose)
        run, i = context.run, context.index
        assert run is not None
        value = run.values[i]
        if value is None:  # a tombstone, or what an operator made
            value = topic.encode_value(run.events[i])
        key, headers = run.keys[i], (*run.headers[i], header)
        context.outbox.lane(topic.name).put(key, value, run.timestamps[i], headers, source_key=key)

    return write


def writer_for(table: TableHandle, outbox: Outbox, partition: int, *, with_window: bool) -> Any:
    """Return what a table is opened with: it calls that with each result, or with what it sends."""
    send = table.sender(outbox, partition) if isinstance(table, Operator) else None
    return send or result_writer(table, outbox, with_window=with_window)


def result_writer(table: TableHandle, outbox: Outbox, *, with_window: bool) -> Emit | None:
    """Return what a table calls with each result; None if its results go nowhere."""
    if table.emitter is None:
        return None
    topic, into = table.emitter.topic, table.emitter.into
    key_field = topic.contract.key_field
    encode_key = topic.encode_key if table.key_type is None else table.key.encode
    encode, encode_key_field = topic.contract.encode, topic.encode_key
    lane = outbox.lane(topic.name)
    rows, partitioner, nobody = lane.rows, lane.partitioner, lane.home or 0
    window = Window(0, 0)  # the last result's: what closes together shares it

    def emit(key: Any, start: int, end: int, value: Any, timestamp: int) -> None:
        nonlocal window
        raw = raw_key = None
        if value is not None:
            if into is None:
                result = value
            else:
                if window.end != end or window.start != start:
                    window = Window(start, end)
                result = into(key, window, value)
            raw = result if result is None or type(result) is bytes else encode(result)
            if key_field is not None:
                raw_key = encode_key_field(key_field(result))
        if raw_key is None:
            raw_key = encode_key(key)
        headers = ((WINDOW_HEADER, b"%d,%d" % (start, end)),) if with_window else ()
        partition = nobody if raw_key is None else partitioner[raw_key]
        rows[partition].append((raw_key, raw, timestamp, headers))

    return emit
