"""What a committed offset says, and what is kept beside it in its metadata.

A partition's offset is committed once, but several consumers read it: agents (one may hold back
events in a ``take``), the table that is the topic, the dead-letter writer. The offset is the lowest
of theirs; those that are further on are named in the metadata, so nobody does a record twice after
a restart. The tables' stream times are kept there too: whether a record is late must not depend on
which worker looks at it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from engine.edges import Position

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.record import TP


class Notes(msgspec.Struct, omit_defaults=True):
    """The metadata of a committed offset.

    Attributes:
        ahead: offsets of the consumers that are further on than the committed one.
        times: stream time (ms) by table.
        gate: streams wait until this topic (a table's) was read up to here.
        topic: the id of the topic that the offset is of (:mod:`engine.incarnation`).
    """

    ahead: dict[str, int] = {}
    times: dict[str, int] = {}
    gate: int = 0
    topic: str = ""


_decode = msgspec.json.Decoder(Notes).decode
_encode = msgspec.json.Encoder().encode


def pack(
    consumers: dict[str, int], times: dict[str, int], gate: int = 0, topic: str = ""
) -> Position:
    """Return the position to commit for consumers at these offsets."""
    offset = min(consumers.values())
    ahead = {name: at for name, at in consumers.items() if at != offset}
    notes = Notes(ahead, times, gate if gate > offset else 0, topic)
    return Position(offset, _encode(notes).decode() if notes != Notes() else "")


def pack_all(
    consumers: Mapping[TP, dict[str, int]],
    times: dict[str, int],
    gates: Mapping[TP, int],
    topics: Mapping[str, str],
) -> dict[TP, Position]:
    """Return the position of each input of a task; the times are noted with the first.

    Args:
        gates: by input.
        topics: ids of topics by name, where they are known.
    """
    return {
        tp: pack(consumers[tp], {} if number else times, gates.get(tp, 0), topics.get(tp.topic, ""))
        for number, tp in enumerate(sorted(consumers))
    }


def unpack(position: Position | None) -> Notes:
    """Return the notes of a position; foreign metadata counts as none."""
    if position is None or not position.metadata:
        return Notes()
    try:
        return _decode(position.metadata)
    except msgspec.DecodeError:
        return Notes()
