"""Hard and easy cases of windows by count, keys that expire, and timers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.loads import HOUR, Case, Load, S, steady
from engine import App
from engine.table import TableHandle


def cases(part: int) -> list[Case]:
    """Return all cases, with a ``part``-th of the events, keys and timers."""
    return [*_counted(part), *_timed(part)]


def _add(total: int, event: int) -> int:
    return total + event


def _update(partition: Any) -> Callable[..., Any]:
    step: Callable[..., Any] = partition.update
    return step


def _app() -> Any:
    return App("blowup")


def _counted(part: int) -> list[Case]:
    def of(size: int, step: int) -> Callable[[], TableHandle]:
        def declare() -> TableHandle:
            table = _app().Table("t", default=int, reduce=_add, value_type=int)
            found: TableHandle = table.counted(size, step)
            return found

        return declare

    return [
        Case("windows by count", 400_000 // part,
             Load("10,000 keys, of 10", of(10, 10), _update, steady(10_000 // part)),
             Load("1 key, of 10", of(10, 10), _update, steady(1))),
        Case("windows by count", 400_000 // part,
             Load("1 key, of 10", of(10, 10), _update, steady(1)),
             Load("1 key, of 100,000", of(100_000, 100_000), _update, steady(1))),
    ]  # fmt: skip


def _write_at(partition: Any) -> Callable[..., Any]:
    at, put = partition.at, partition.put

    def step(key: str, ts: int, event: int) -> None:
        at(ts)
        put(key, event)

    return step


def _set_and_fire(partition: Any, *, ahead: int) -> Callable[..., Any]:
    def step(key: str, ts: int, _: int) -> None:
        partition.set(ts + ahead, key.encode())
        while partition.next_ms <= ts:
            partition.pop()

    return step


def _timed(part: int) -> list[Case]:
    def expiring(ttl: int, cache: int = 400_000) -> Callable[[], TableHandle]:
        def declare() -> TableHandle:
            found: TableHandle = _app().Table("t", value_type=int, ttl=ttl / S, cache_entries=cache)
            return found

        return declare

    def timers() -> TableHandle:
        table = _app().Table("t", key_type=str)
        table.timer(lambda _key, _time: None)
        found: TableHandle = table.timers
        return found

    def fire(ahead: int) -> Callable[[Any], Callable[..., Any]]:
        return lambda partition: _set_and_fire(partition, ahead=ahead)

    many = 100_000 // part
    return [
        Case("keys that expire", 400_000 // part,
             Load("10,000 keys, none expires", expiring(HOUR), _write_at, steady(10_000 // part)),
             Load("1 key, none expires", expiring(HOUR), _write_at, steady(1))),
        Case("keys that expire", 200_000 // part,
             Load("1,000 live, each write a new key's", expiring(S), _write_at,
                  steady(1 << 40), 2_000),
             Load(f"{many:,} live, each write a new key's, a tenth in memory",
                  expiring(many, many // 10), _write_at, steady(1 << 40), 2 * many)),
        Case("timers", 200_000 // part,
             Load("one set and one fires, 1,000 wait", timers, fire(S), steady(1_000), 2_000),
             Load(f"one set and one fires, {2 * many:,} wait", timers, fire(2 * many),
                  steady(1_000), 4 * many)),
    ]  # fmt: skip
