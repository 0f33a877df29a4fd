"""What one commit takes from a task."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from engine import incarnation

if TYPE_CHECKING:
    from engine.edges import Position
    from engine.record import TP, Output
    from engine.task import Task
    from tables.store import Change, Entry


class TaskCut(NamedTuple):
    """What one commit takes from a task.

    Attributes:
        before: the positions of the cut before.
        handed: so many events were handed out for it, at least.
        last: the input and offset of the last of them.
    """

    task: Task
    rows: dict[TP, list[Output]]
    changelogs: dict[TP, list[Output]]
    positions: dict[TP, Position]
    store: dict[str, list[Entry]]
    before: dict[TP, Position]
    handed: int
    last: tuple[TP, int] | None

    def notes(self, ends: dict[TP, int], now_ms: int) -> list[Change]:
        """Return what the store notes beside the changes: the offsets that it is at then.

        Args:
            ends: where the changelogs are after the commit.
        """
        notes: list[Change] = [
            (f"changelog:{tp.topic}".encode(), b"%d" % ends[tp]) for tp in self.changelogs
        ]
        for tp, at in self.positions.items():
            notes.append((f"source:{tp.topic}".encode(), b"%d" % at.offset))
        return [*notes, incarnation.current(now_ms)]
