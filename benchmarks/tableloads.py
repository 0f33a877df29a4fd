"""Hard and easy cases of tables: keyed, windowed, sessions."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from benchmarks.loads import MIN, Case, Load, S, steady, visits_of
from engine import App
from engine.table import TableHandle


def _add(total: int, event: int) -> int:
    return total + event


def _one_more(partition: Any) -> Callable[..., Any]:
    get, put = partition.get, partition.put

    def step(key: str, _: int, event: int) -> None:
        put(key, get(key, 0) + event)

    return step


def _update(partition: Any) -> Callable[..., Any]:
    step: Callable[..., Any] = partition.update
    return step


def _app() -> Any:
    return App("blowup")


def cases(part: int) -> list[Case]:
    """Return all cases, with a ``part``-th of the events, keys, sessions and matches."""
    return [*_keyed(part), *_windows(part), *_sliding(part), *_sessions(part)]


def _keyed(part: int) -> list[Case]:
    def of(cache: int) -> Callable[[], TableHandle]:
        def declare() -> TableHandle:
            found: TableHandle = _app().Table("t", default=int, value_type=int, cache_entries=cache)
            return found

        return declare

    kept, many, few = of(400_000), 200_000 // part, 20_000 // part
    return [
        Case("keyed table", 1_000_000 // part,
             Load(f"{10_000 // part:,} keys", kept, _one_more, steady(10_000 // part)),
             Load("1 key", kept, _one_more, steady(1))),
        Case("keyed table", 400_000 // part,
             Load(f"{many:,} keys, all in memory", kept, _one_more, steady(many), many),
             Load(f"{many:,} keys, a tenth in memory", of(few), _one_more, steady(many), many)),
    ]  # fmt: skip


def _windows(part: int) -> list[Case]:
    def of(size: int, step: int, grace: int, cache: int = 400_000) -> Callable[[], TableHandle]:
        def declare() -> TableHandle:
            table = _app().Table("t", default=int, value_type=int, cache_entries=cache)
            topic = _app().topic("out")
            found: TableHandle = table.hopping(size / S, step / S, grace=grace / S, reduce=_add,
                                               sink=topic)  # fmt: skip
            return found

        return declare

    minute, many, some = of(MIN, MIN, 5 * MIN), 100_000 // part, 20_000 // part
    hops = of(MIN, 10 * S, 5 * MIN)
    second = of(S, S, 10**9)
    return [
        Case("tumbling windows", 1_000_000 // part,
             Load(f"{10_000 // part:,} keys", minute, _update, steady(10_000 // part)),
             Load("1 key", minute, _update, steady(1))),
        Case("hopping windows", 200_000 // part,
             Load(f"{10_000 // part:,} keys", hops, _update, steady(10_000 // part)),
             Load("1 key", hops, _update, steady(1))),
        Case("tumbling windows", 200_000 // part,
             Load("100 open, all of one key", of(S, S, 99 * S), _update, steady(1, S), 200),
             Load(f"{many:,} open, all of one key", of(S, S, many * S), _update, steady(1, S),
                  many + 100)),
        Case("tumbling windows", 200_000 // part,
             Load("late events into 10 open windows", second, _update,
                  steady(many // 10, 2, back=S, spread=10), 10_000),
             Load(f"late events into {many:,} open windows", second, _update,
                  steady(1, 2, back=S, spread=many), 4 * many)),
        Case("tumbling windows", 200_000 // part,
             Load(f"{some:,} keys, all in memory", minute, _update, steady(some)),
             Load(f"{some:,} keys, a tenth in memory", of(MIN, MIN, 5 * MIN, some // 10), _update,
                  steady(some))),
    ]  # fmt: skip


def _sliding(part: int) -> list[Case]:
    """Return cases in which an event's windows hold three others: it changes each of them."""

    def of(grace: int) -> Callable[[], TableHandle]:
        def declare() -> TableHandle:
            table = _app().Table("t", default=int, value_type=int, cache_entries=10**6)
            found: TableHandle = table.sliding(30, grace=grace / S, reduce=_add,
                                               sink=_app().topic("out"))  # fmt: skip
            return found

        return declare

    many, few = 100_000 // part, max(100, 1_000 // part)
    return [
        Case("sliding windows", 200_000 // part,
             Load(f"{10_000 // part:,} keys", of(MIN), _update, steady(10_000 // part, part),
                  30_000 // part),
             Load("1 key", of(MIN), _update, steady(1, 10 * S), 30_000 // part)),
        Case("sliding windows", 200_000 // part,
             Load(f"{few:,} open, all of one key", of(few * 5 * S), _update, steady(1, 10 * S),
                  many),
             Load(f"{many:,} open, all of one key", of(many * 5 * S), _update, steady(1, 10 * S),
                  many)),
    ]  # fmt: skip


def _sessions(part: int) -> list[Case]:
    def of(gap: int, grace: int, cache: int = 400_000, **emit: Any) -> Callable[[], TableHandle]:
        def declare() -> TableHandle:
            found: TableHandle = _app().SessionTable(
                "t", gap=gap / S, grace=grace / S, value_type=int, reduce=_add, merge=operator.add,
                sink=_app().topic("out"), cache_entries=cache, **emit,
            )  # fmt: skip
            return found

        return declare

    visits, many, alike = of(30 * MIN, 5 * MIN), 100_000 // part, 10_000 // min(part, 4)
    return [
        Case("sessions", 1_000_000 // part,
             Load(f"{10_000 // part:,} keys", visits, _update, steady(10_000 // part)),
             Load("1 key", visits, _update, steady(1))),
        Case("sessions", 400_000 // part,
             Load("1,000 open", visits, _update, steady(1_000), 2_000),
             Load(f"{many:,} open", visits, _update, steady(many), 2 * many)),
        Case("sessions", 400_000 // part,
             Load(f"{many:,} open, all in memory", visits, _update, steady(many), 2 * many),
             Load(f"{many:,} open, a tenth in memory", of(30 * MIN, 5 * MIN, many // 10), _update,
                  steady(many), 2 * many)),
        Case("sessions", 100_000 // part,
             Load("1 event each, 100 live of one key", of(S, 200 * S), _update,
                  steady(1, 2 * S), 300),
             Load(f"1 event each, {alike:,} live of one key", of(S, 2 * alike * S), _update,
                  steady(1, 2 * S), alike + 100)),
        Case("sessions", 400_000 // part,
             Load("three events each, in order", of(S, 5 * S), _update,
                  visits_of(1_000, bridging=False), 6_000),
             Load("three events each, the last one bridges", of(S, 5 * S), _update,
                  visits_of(1_000, bridging=True), 6_000)),
    ]  # fmt: skip
