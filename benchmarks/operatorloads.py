"""Hard and easy cases of operators: joins and patterns."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

from benchmarks.loads import HOUR, SCATTER, START, Case, Load, Rows, S
from engine import App, Pattern
from engine.foreignkey import RightSide
from engine.joins import AsOfJoin
from engine.operator import Operator
from tables.foreignkey import IF_THERE, Subscription

LOGIN, PURCHASE, LOOK = range(3)


def cases(part: int) -> list[Case]:
    """Return all cases, with a ``part``-th of the events, keys, records and matches."""
    return [*_stream_joins(part), *_as_of_joins(part), *_table_joins(part), *_patterns(part)]


def _step(partition: Any) -> Callable[..., Any]:
    step: Callable[..., Any] = partition.step
    return step


def meetings(keys: int, *, alone: bool = False) -> Callable[[], Rows]:
    """Return left and right events of so many keys by turns, one each 2 ms.

    Args:
        alone: the right ones come to keys of their own, so that nobody meets anybody.
    """

    def rows() -> Rows:
        for n in count():
            key, ts = n * SCATTER % keys, START + 2 * n
            yield 0, b"user_%d" % key, ts, n
            yield 1, b"user_%d" % (-1 - key if alone else key), ts + 1, n

    return rows


def _stream_joins(part: int) -> list[Case]:
    def of(grace: int, how: str = "inner", cache: int = 10**6) -> Callable[[], Operator]:
        def declare() -> Operator:
            app: Any = App("blowup")
            topics = [app.topic(name, key_type=str, value_type=int) for name in ("l", "r")]
            join: Operator = app.Join("j", *topics, within=1 / S, grace=grace / S, how=how,
                                      cache_entries=cache)  # fmt: skip
            return join

        return declare

    many, keys = 100_000 // part, 10_000 // part
    few = max(100, 1_000 // part)
    return [
        Case("join of streams", 1_000_000 // part,
             Load(f"{10_000 // part:,} keys", of(S), _step, meetings(keys), few),
             Load("1 key", of(S), _step, meetings(1), few)),
        Case("join of streams", 200_000 // part,
             Load(f"{few:,} records kept, of one key", of(few), _step, meetings(1), 2 * many),
             Load(f"{many:,} records kept, of one key", of(many), _step, meetings(1), 2 * many)),
        Case("outer join of streams", 200_000 // part,
             Load(f"{few:,} records wait alone", of(few, "outer"), _step,
                  meetings(keys, alone=True), 2 * many),
             Load(f"{many:,} records wait alone", of(many, "outer"), _step,
                  meetings(keys, alone=True), 2 * many)),
        Case("outer join of streams", 200_000 // part,
             Load(f"{few:,} records wait alone, of one key", of(few, "outer"), _step,
                  meetings(1, alone=True), 2 * many),
             Load(f"{many:,} records wait alone, of one key", of(many, "outer"), _step,
                  meetings(1, alone=True), 2 * many)),
    ]  # fmt: skip


def _as_of_joins(part: int) -> list[Case]:
    def of(history: int, grace: int) -> Callable[[], Operator]:
        def declare() -> Operator:
            app: Any = App("blowup")
            topics = [app.topic(n, key_type=str, value_type=int, compacting=True) for n in "st"]
            table = app.Table("t", source=topics[1], history=history / S, cache_entries=10**6)
            return AsOfJoin("j", topics[0], table, grace=grace / S, how="left")

        return declare

    def ask(table: Any, join: Any) -> Callable[..., Any]:
        """Change the row of a key, then ask for it in the past."""
        follow, step = table.follow, join.step

        def both(key: bytes, ts: int, value: int) -> None:
            follow((key,), (value,), (b"%d" % value,), (ts,))
            step(0, key, ts, value)

        return both

    def changes(keys: int) -> Callable[[], Rows]:
        def rows() -> Rows:
            for n in count():
                yield b"user_%d" % (n * SCATTER % keys), START + n, n

        return rows

    many, few = 100_000 // part, max(100, 1_000 // part)
    return [
        Case("as-of join", 200_000 // part,
             Load(f"{10_000 // part:,} keys", of(S, S // 2), ask, changes(10_000 // part), 2 * S),
             Load("1 key", of(S, S // 2), ask, changes(1), 2 * S)),
        Case("as-of join", 200_000 // part,
             Load(f"{few:,} versions of one key, {few // 2:,} events wait", of(few, few // 2),
                  ask, changes(1), 2 * many),
             Load(f"{many:,} versions of one key, {many // 2:,} events wait",
                  of(many, many // 2), ask, changes(1), 2 * many)),
    ]  # fmt: skip


def _table_joins(part: int) -> list[Case]:
    def of() -> Operator:
        app: Any = App("blowup")
        topics = [app.topic(n, key_type=str, value_type=int, compacting=True) for n in "lr"]
        join: Operator = app.TableJoin("j", *topics, how="outer", cache_entries=10**6)
        return join

    def right() -> RightSide:
        return RightSide("right", cache_entries=10**6)

    def subscribe(partition: Any) -> Callable[..., Any]:
        """Let a left row subscribe to a right one."""

        def step(foreign_key: bytes, key: bytes, ts: int) -> None:
            partition.subscribe(foreign_key, Subscription(key, 1, IF_THERE, False, 0), ts)  # noqa: FBT003

        return step

    def subscriptions(keys: int) -> Callable[[], Rows]:
        def rows() -> Rows:
            for n in count():
                yield b"right_%d" % (n * SCATTER % keys), b"left_%d" % n, START + n

        return rows

    keys = 10_000 // part
    return [
        Case("join of tables", 1_000_000 // part,
             Load(f"{keys:,} keys", of, _step, meetings(keys)),
             Load("1 key", of, _step, meetings(1))),
        Case("foreign-key join", 400_000 // part,
             Load(f"left rows of {keys:,} right rows", right, subscribe, subscriptions(keys)),
             Load("left rows of 1 right row", right, subscribe, subscriptions(1))),
    ]  # fmt: skip


def _patterns(part: int) -> list[Case]:
    """Return cases of login -> purchase: an event is a login (0), a purchase (1) or neither."""

    def of(within: int) -> Callable[[], Operator]:
        def declare() -> Operator:
            app: Any = App("blowup")
            pattern = (
                Pattern.begin("login").where(lambda event: event == LOGIN)
                .followed_by("purchase").where(lambda event: event == PURCHASE)
                .within(within / S)
            )  # fmt: skip
            topic = app.topic("events", key_type=str, value_type=int)
            match: Operator = app.Match("m", topic, pattern, cache_entries=10**6)
            return match

        return declare

    many, few = 10_000 // part, 100
    return [
        Case("pattern", 200_000 // part,
             Load(f"{few:,} partial matches, a key each", of(HOUR), _step,
                  looks(few, few), 2 * few),
             Load(f"{many:,} partial matches, a key each", of(HOUR), _step,
                  looks(many, many), 2 * many)),
        Case("pattern", 200_000 // part,
             Load(f"{few:,} partial matches of one key", of(HOUR), _step, looks(1, few), 2 * few),
             Load(f"{many:,} partial matches of one key", of(HOUR), _step, looks(1, many),
                  2 * many)),
    ]  # fmt: skip


def looks(keys: int, logins: int) -> Callable[[], Rows]:
    """Return so many logins, then events that mean nothing to who waits for a purchase."""

    def rows() -> Rows:
        for n in count():
            yield 0, b"user_%d" % (n % keys), START + n // 100, LOGIN if n < logins else LOOK

    return rows
