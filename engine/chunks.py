"""Events by the list (``stream.take``): their position is held back until the list is done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.feed import TICK, Feed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def chunks(
    feed: Feed, values: AsyncIterator[Any], max_: int, within: float | None
) -> AsyncIterator[list[Any]]:
    """Yield lists of up to ``max_`` values, a shorter one ``within`` seconds after its first."""
    if feed.handed_over:  # the loop was left with a chunk in hand: that is done
        feed.release()
    taken: list[Any] = []
    async for value in values:
        if value is not TICK:
            if not taken and within is not None:
                feed.tick_in(within * 1000)
            feed.hold()
            taken.append(value)
            if len(taken) < max_ and not (feed.singly and feed.alone()):
                continue
        elif not feed.overdue:
            continue
        feed.no_tick()
        if taken:
            chunk, taken = taken, []
            feed.handed_over = True
            yield chunk
            feed.release()
