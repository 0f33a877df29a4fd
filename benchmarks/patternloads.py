"""Hard and easy cases of patterns."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

from benchmarks.loads import SCATTER, START, Case, Load, Rows, S
from engine import App, Pattern, no_skip, skip_past_last_event
from engine.operator import Operator

BEGIN, END, OTHER = 0, 1, 2


def cases(part: int) -> list[Case]:
    """Return all cases, with a ``part``-th of the events, keys and partial matches."""
    many, few, keys = 10_000 // part, max(10, 100 // part), 10_000 // part
    hour = 3600 * S
    return [
        Case("pattern", 500_000 // part,
             Load(f"{keys:,} keys", of(hour), _step, turns(keys), 3 * keys),
             Load("1 key", of(hour), _step, turns(1), 3 * keys)),
        Case("pattern", 200_000 // part,
             Load(f"{few:,} partial matches of one key come and go", of(few), _step,
                  begun(10**9), 2 * many),
             Load(f"{many:,} partial matches of one key come and go", of(many), _step,
                  begun(10**9), 2 * many)),
        Case("pattern", 200_000 // part,
             Load(f"{few:,} partial matches of one key wait", of(hour, skip=True), _step,
                  begun(few), 2 * many),
             Load(f"{many:,} partial matches of one key wait", of(hour, skip=True), _step,
                  begun(many), 2 * many)),
    ]  # fmt: skip


def of(within_ms: int, *, skip: bool = False) -> Callable[[], Operator]:
    """Declare a pattern: a beginning, followed by an end.

    Args:
        skip: with a skip strategy every event has to wait for its time.
    """

    def declare() -> Operator:
        app: Any = App("blowup")
        topic = app.topic("events", key_type=str, value_type=int)
        pattern = (
            Pattern.begin("begin", skip=skip_past_last_event() if skip else no_skip())
            .where(BEGIN.__eq__)
            .followed_by("end")
            .where(END.__eq__)
            .within(within_ms / S)
        )
        matcher: Operator = app.Match("p", topic, pattern, cache_entries=10**6)
        return matcher

    return declare


def _step(partition: Any) -> Callable[..., Any]:
    step: Callable[..., Any] = partition.step
    return step


def turns(keys: int) -> Callable[[], Rows]:
    """Return a beginning, another event and an end of each key, by turns of the keys."""

    def rows() -> Rows:
        for n in count():
            key = n * SCATTER % keys
            yield 0, b"user_%d" % key, START + n, n // keys % 3

    return rows


def begun(most: int) -> Callable[[], Rows]:
    """Return that many beginnings of one key, a ms apart, and then other events."""

    def rows() -> Rows:
        for n in count():
            yield 0, b"user_1", START + n, BEGIN if n < most else OTHER

    return rows
