"""What went before it was read: retention overtook the group, or the topic is another one.

There is no right place to go on, and a jump must never be silent: the task stops with an error that
names the offsets, or, where ``on_lost_input`` says ``continue``, goes on at what is there and says
what it left behind. The same goes for a changelog that somebody has shortened: what is left of it
does not make the table. Compaction is no reason: it never moves a partition's first offset.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from engine import position
from engine.errors import InputLost

if TYPE_CHECKING:
    from engine.edges import Position
    from engine.record import TP

log = logging.getLogger(__name__)

REMEDY = (
    "Nothing was skipped. To go on with what is there, restart with on_lost_input=continue "
    "(HEADRACE_ON_LOST_INPUT), or set the group's offsets with `kafka-consumer-groups "
    "--reset-offsets` while no worker runs"
)

CHANGELOG_REMEDY = (
    "To have the table whole, start the worker whose state directory still has it, or give the app "
    "a new id, so that its tables are built anew from the input. To go on with what is there, "
    "restart with on_lost_input=continue (HEADRACE_ON_LOST_INPUT). A changelog needs "
    "cleanup.policy=compact, without delete"
)


def shortened(tp: TP, known: int, begin: int) -> InputLost:
    """Return what is wrong with a changelog that begins after what a store has of it.

    Args:
        known: the store has what was before this offset.
        begin: the first offset that the changelog has.
    """
    return InputLost(
        tp,
        f"{tp} begins at offset {begin}, and the store has it only up to {known}: {begin - known} "
        "offsets of this changelog were deleted, and the table cannot be rebuilt without them",
    )


def lost(tp: TP, at: Position | None, bounds: tuple[int, int], topic_id: str) -> InputLost | None:
    """Return what is wrong with a committed position, or None.

    Args:
        bounds: the first offset that the partition has, and its end.
        topic_id: of the topic as it is now; "": not known.
    """
    if at is None:
        return None
    begin, end = bounds
    known = position.unpack(at).topic
    if known and topic_id and known != topic_id:
        return InputLost(
            tp,
            f"{tp} was created anew: the group's position {at.offset} is of an earlier topic of "
            f"that name, and this one holds {begin} to {end}",
        )
    if at.offset < begin:
        return InputLost(
            tp,
            f"{tp} begins at offset {begin}, but the group has only read up to {at.offset}: "
            f"{begin - at.offset} offsets were deleted (retention) before they were read",
        )
    if at.offset > end:
        return InputLost(
            tp,
            f"{tp} ends at offset {end}, but the group's position is {at.offset}: the topic was "
            "created anew, or a broker has lost records",
        )
    return None


def passed(tp: TP, at: Position, bounds: tuple[int, int], topic_id: str) -> Position:
    """Return the position at which to go on behind a gap."""
    begin, end = bounds
    notes = position.unpack(at)
    same = at.offset <= end and not (topic_id and notes.topic and topic_id != notes.topic)
    ahead = {name: offset for name, offset in notes.ahead.items() if same and begin < offset <= end}
    log.warning("%s goes on at offset %d, after %d: on_lost_input is `continue`", tp, begin,
                at.offset)  # fmt: skip
    consumers = {"": begin, **ahead}
    return position.pack(consumers, notes.times, topic=topic_id)
