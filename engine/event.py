"""An event with all that came with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from engine.context import Context
    from engine.record import Headers


class Event(NamedTuple):
    """An event with what came with it (``stream.events()``)."""

    key: Any
    value: Any
    headers: Headers
    timestamp: float
    topic: str
    partition: int
    offset: int


def event_in_hand(context: Context, key: Any, value: Any) -> Event:
    """Return the event that an agent has in hand, with its decoded key and what a view made of it.

    Its timestamp is in seconds, as in Faust.
    """
    run, i = context.run, context.index
    assert run is not None
    return Event(
        key, value, run.headers[i], run.timestamps[i] / 1000,
        run.tp.topic, run.tp.partition, run.offsets[i],
    )  # fmt: skip
