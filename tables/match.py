"""What a pattern yields: matches, and where it was asked for, what did not become one."""

from __future__ import annotations

from typing import Any

import msgspec


class _Events(msgspec.Struct, frozen=True, gc=False):
    """Events by the step they were taken for.

    Attributes:
        pattern: the name of the pattern.
        events: by step, in the order in which they were taken; a step without any is not there.
        start: the time of the first event (ms).
    """

    pattern: str
    events: dict[str, list[Any]]
    start: int

    def __getitem__(self, step: str) -> list[Any]:
        """Return the events of a step; none, if it was left out or its time did not come."""
        return self.events.get(step, [])

    def __contains__(self, step: object) -> bool:
        return step in self.events

    def one(self, step: str) -> Any:
        """Return the event of a step that takes one.

        Raises:
            LookupError: it took none, or several.
        """
        events = self.events.get(step, [])
        if len(events) != 1:
            raise LookupError(
                f"step {step!r} of {self.pattern!r} took {len(events)} events: use match[{step!r}]"
            )
        return events[0]


class Match(_Events, frozen=True, gc=False):
    """Events that meet a pattern. ``end``: the time of the last one (ms)."""

    end: int


class Timeout(_Events, frozen=True, gc=False):
    """The beginning of a match whose time is over. ``end``: when it was (ms)."""

    end: int


class Late(msgspec.Struct, frozen=True, gc=False):
    """An event that came when the watermark was past it. ``ts`` in ms."""

    pattern: str
    ts: int
    event: Any
