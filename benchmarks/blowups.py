"""The cases of :mod:`benchmarks.blowup`: what is easy, and what is slow if it is done badly.

Times are ms. Rows are what the partition's step takes: (key, ts, event) for tables, (side, key, ts,
value) for operators.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, NamedTuple

from engine import App
from engine.table import TableHandle

S, MIN, HOUR = 1000, 60_000, 3_600_000
START = 1_700_000_000_000
SCATTER = 7919
"""Steps of this size through a number of keys touch all of them, and none twice in a row."""

Rows = Iterator[tuple[Any, ...]]


class Load(NamedTuple):
    """A table or an operator, and its input.

    Attributes:
        what: for the reader.
        table: declares it anew.
        step: returns what takes a row.
        rows: yields rows without end.
        before: so many of them come before the clock runs.
    """

    what: str
    table: Callable[[], TableHandle]
    step: Callable[[Any], Callable[..., Any]]
    rows: Callable[[], Rows]
    before: int = 0


class Case(NamedTuple):
    """A hard load beside an easy one."""

    kind: str
    events: int
    easy: Load
    hard: Load


def steady(keys: int, every_ms: int = 1, *, back: int = 0, spread: int = 1) -> Callable[[], Rows]:
    """Return events of so many keys by turns, one every so many ms.

    Args:
        back: every second event is so many ms in the past...
        spread: ... and then up to so many times that.
    """

    def rows() -> Rows:
        for n in count():
            ts = START + n * every_ms
            if back and n % 2:
                ts -= back * (1 + n * SCATTER % spread)
            yield f"user_{n * SCATTER % keys}", ts, 1

    return rows


def visits_of(keys: int, *, bridging: bool) -> Callable[[], Rows]:
    """Return visits of three events within 2 s, by turns of the keys, the next one 20 s later.

    Args:
        bridging: the middle one comes last, and joins two sessions.
    """
    order = (0, 1600, 800) if bridging else (0, 800, 1600)

    def rows() -> Rows:
        for visit in count():
            for late in order:
                for n in range(keys):
                    yield f"user_{n * SCATTER % keys}", START + visit * 20 * S + late, 1

    return rows


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
    return [*_keyed(part), *_windows(part), *_sessions(part)]


def _keyed(part: int) -> list[Case]:
    def of(cache: int) -> Callable[[], TableHandle]:
        def declare() -> TableHandle:
            found: TableHandle = _app().Table("t", default=int, value_type=int, cache_entries=cache)
            return found

        return declare

    kept, many, few = of(400_000), 200_000 // part, 20_000 // part
    return [
        Case("keyed table", 1_000_000 // part,
             Load("10,000 keys", kept, _one_more, steady(10_000 // part)),
             Load("1 key", kept, _one_more, steady(1))),
        Case("keyed table", 400_000 // part,
             Load("200,000 keys, all in memory", kept, _one_more, steady(many), many),
             Load("200,000 keys, a tenth in memory", of(few), _one_more, steady(many), many)),
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

    minute, keys, many = of(MIN, MIN, 5 * MIN), 10_000 // part, 100_000 // part
    hops = of(MIN, 10 * S, 5 * MIN)
    second = of(S, S, 10**9)
    return [
        Case("tumbling windows", 1_000_000 // part,
             Load("10,000 keys", minute, _update, steady(keys)),
             Load("1 key", minute, _update, steady(1))),
        Case("hopping windows", 200_000 // part,
             Load("10,000 keys", hops, _update, steady(keys)),
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
             Load("20,000 keys in memory", minute, _update, steady(20_000 // part)),
             Load("20,000 keys, a tenth in memory", of(MIN, MIN, 5 * MIN, 2_000 // part), _update,
                  steady(20_000 // part))),
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
             Load("10,000 keys", visits, _update, steady(10_000 // part)),
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
