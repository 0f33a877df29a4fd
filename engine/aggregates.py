"""What is kept of many events, declared field by field.

::

    class Totals(Aggregates):
        events = Count()
        views = Count(where={"event_type": "page_view"})
        spent = Sum("value")
        p99 = Quantile("time_on_page", 0.99)
        pages = Distinct("page", exact=False)

    totals = app.Table("totals", key_type=str, value_type=Totals).tumbling(60, sink=OUT)

    totals.update(event.user_id, event)     # in an agent

``Totals()`` is empty, ``totals.add(event)`` takes one more event, ``one.merge(other)`` what another
has taken (sessions that an event bridges), and ``totals.spent`` is the result so far. What is kept
is a MessagePack array with a state a field, in the order of declaration: fields may be added at the
end, and anything else needs a table of another name.

As in SQL, an event without a value (the field is None, or the event is) adds to nothing but to a
``Count()`` of no field.
"""

from __future__ import annotations

import inspect
import operator
from bisect import insort_left
from collections.abc import Callable
from typing import Any

from engine.aggregate import Aggregate, Aggregates, Getter, Kept, R, Step, getter_of
from engine.context import event_time_ms
from engine.errors import ConfigError
from tables.sketches import DDSketch, Frequent, HyperLogLog, scale_of

__all__ = [
    "Aggregates", "Avg", "Collect", "Count", "Distinct", "First", "Largest", "Last", "Max", "Min",
    "Quantile", "Quantiles", "Reduce", "Sum", "TopK",
]  # fmt: skip


class Count(Aggregate[int]):
    """How many events; ``Count("page")``: how many that have a page."""

    def __init__(self, of: Any = None, **options: Any) -> None:
        super().__init__(of, Kept(int, int, _one_more, operator.add, result=int), **options)

    def step(self, field: Callable[[str], Getter]) -> Step:
        """Return what counts: every event, a null one too, or those with a value."""
        if self.of is not None or self.where is not None:
            return super().step(field)
        slot = self.slot

        def count(totals: Any, _: Any) -> None:
            setattr(totals, slot, getattr(totals, slot) + 1)

        return count

    def counts_nulls(self) -> bool:
        """Say whether an event that is None changes the state."""
        return self.of is None and self.where is None


class Sum(Aggregate[float]):
    """The sum. Of ints it is exact, up to 64 bits; floats are added in the order of arrival."""

    def __init__(self, of: Any, **options: Any) -> None:
        number = int | float
        super().__init__(of, Kept(number, int, operator.add, operator.add, None, number), **options)


class Avg(Aggregate[float | None]):
    """The mean; None of none."""

    def __init__(self, of: Any, **options: Any) -> None:
        kept = Kept(
            list[int | float], lambda: [0, 0], _add_to_mean, _join_means, _mean, float | None
        )
        super().__init__(of, kept, **options)


class Min(Aggregate[Any]):
    """The smallest value, of equals the first; None of none.

    Args:
        value_type: the values' type, where it is not text, a number, a bool or bytes. So too below.
    """

    def __init__(self, of: Any = None, *, value_type: Any = Any, **options: Any) -> None:
        super().__init__(of, _chosen(value_type, _smaller), **options)


class Max(Aggregate[Any]):
    """The largest value, of equals the first; None of none."""

    def __init__(self, of: Any = None, *, value_type: Any = Any, **options: Any) -> None:
        super().__init__(of, _chosen(value_type, _larger), **options)


class First(Aggregate[Any]):
    """The value of the earliest event, by event time; of equal times the one that came first.

    Args:
        at: the field with the time (ms), or a function of the event; None: the event time that the
            topic's contract says.
    """

    def __init__(
        self,
        of: Any = None,
        *,
        at: Any = None,
        value_type: Any = Any,
        **options: Any,
    ) -> None:
        self.at = at
        super().__init__(of, _timed(value_type, _earlier), **options)

    def getter(self, field: Callable[[str], Getter]) -> Getter:
        """Return the pair of time and value."""
        get = super().getter(field)
        time = _now if self.at is None else getter_of(self.at, field)

        def pair(event: Any) -> Any:
            value = get(event)
            return None if value is None else (time(event), value)

        return pair


class Last(First):
    """The value of the latest event, by event time; of equal times the one that came last."""

    def __init__(
        self,
        of: Any = None,
        *,
        at: Any = None,
        value_type: Any = Any,
        **options: Any,
    ) -> None:
        super().__init__(of, at=at, value_type=value_type, **options)
        self.kept = _timed(value_type, _later)


class Collect(Aggregate[list[Any]]):
    """The last ``most`` values, in the order in which they came.

    Of two sessions that are merged: those of one, then those of the other.
    """

    def __init__(
        self,
        of: Any = None,
        *,
        most: int = 1_000,
        value_type: Any = Any,
        **options: Any,
    ) -> None:
        _check(most > 0, f"Collect(most={most}): keep one at least")

        def put(state: list[Any], value: Any) -> list[Any]:
            state.append(value)
            if len(state) > most:
                del state[0]
            return state

        def join(one: list[Any], other: list[Any]) -> list[Any]:
            return (one + other)[-most:]

        kind: Any = list.__class_getitem__(value_type)
        super().__init__(of, Kept(kind, list, put, join, list, kind), **options)


class Distinct(Aggregate[int]):
    """How many different values: text, numbers, bools or bytes; 1 and 1.0 are the same.

    Args:
        exact: keep every value. Else a HyperLogLog: at most 2 ** ``precision`` bytes, standard
            error 1.04 / sqrt(2 ** precision), which is 1.6 % for 12.
        precision: 4 to 16.
    """

    def __init__(
        self, of: Any = None, *, exact: bool = True, precision: int = 12, **options: Any
    ) -> None:
        _check(4 <= precision <= 16, f"Distinct(precision={precision}): 4 to 16")  # noqa: PLR2004

        def put(state: HyperLogLog, value: Any) -> HyperLogLog:
            state.add(value, precision)
            return state

        def join(one: HyperLogLog, other: HyperLogLog) -> HyperLogLog:
            one.merge(other, precision)
            return one

        def read(state: HyperLogLog) -> int:
            return state.count(precision)

        kept = Kept(HyperLogLog, HyperLogLog, put, join, read, int)
        if exact:
            kept = Kept(set[Any], set, _add_to_set, operator.or_, len, int)
        super().__init__(of, kept, **options)


class Quantiles(Aggregate[tuple[float | None, ...]]):
    """Several quantiles of one set of numbers, from one sketch: ``Quantiles("ms", 0.5, 0.99)``.

    A quantile ``q`` of n numbers is the one of rank floor(q * (n - 1)), counted from 0 in their
    order. What is returned is within ``error`` of it, relatively.

    Args:
        error: the relative error, 0.01 for 1 %.
        buckets: the most that are kept; 2,048 at 1 % span numbers up to 10 ** 17 apart. Beyond, the
            lowest numbers are known less well.
    """

    def __init__(
        self, of: Any, *q: float, error: float = 0.01, buckets: int = 2048, **options: Any
    ) -> None:
        scale = _checked_scale(q, error, buckets)

        def read(state: DDSketch) -> tuple[float | None, ...]:
            return tuple(state.quantile(each, scale) for each in q)

        super().__init__(of, _sketch(scale, buckets, read, tuple[float | None, ...]), **options)


class Quantile(Aggregate[float | None]):
    """One quantile: ``Quantile("ms", 0.99)``; None of no numbers. See :class:`Quantiles`."""

    def __init__(
        self, of: Any, q: float, *, error: float = 0.01, buckets: int = 2048, **options: Any
    ) -> None:
        scale = _checked_scale((q,), error, buckets)

        def read(state: DDSketch) -> float | None:
            return state.quantile(q, scale)

        super().__init__(of, _sketch(scale, buckets, read, float | None), **options)


class TopK(Aggregate[list[tuple[Any, int]]]):
    """The ``k`` most frequent values with their counts: text, numbers, bools or bytes.

    Exact while there are no more than ``capacity`` different ones. After that a count may lack up
    to 2 / capacity of all events, never has too many, and a value that makes up less than that may
    be missing. Of equal counts, the value that came first.
    """

    def __init__(self, of: Any, k: int, *, capacity: int | None = None, **options: Any) -> None:
        room = 20 * k if capacity is None else capacity
        _check(0 < 2 * k <= room, f"TopK({k}, capacity={room}): capacity is twice k at least")

        def put(state: Frequent, value: Any) -> Frequent:
            state.add(value, room)
            return state

        def join(one: Frequent, other: Frequent) -> Frequent:
            one.merge(other, room)
            return one

        def read(state: Frequent) -> list[tuple[Any, int]]:
            return state.top(k)

        kept = Kept(Frequent, Frequent, put, join, read, list[tuple[Any, int]])
        super().__init__(of, kept, **options)


class Largest(Aggregate[list[Any]]):
    """The ``k`` largest values, the largest first; of equals the first."""

    def __init__(self, of: Any, k: int, *, value_type: Any = Any, **options: Any) -> None:
        _check(k > 0, f"Largest({k}): keep one at least")

        def put(state: list[Any], value: Any) -> list[Any]:
            if len(state) < k:
                insort_left(state, value)
            elif value > state[0]:
                del state[0]
                insort_left(state, value)
            return state

        def join(one: list[Any], other: list[Any]) -> list[Any]:
            return sorted(other + one)[-k:]

        kind: Any = list.__class_getitem__(value_type)
        super().__init__(of, Kept(kind, list, put, join, _descending, kind), **options)


class Reduce(Aggregate[R]):
    """Any other: a function of what is kept and a value.

    Args:
        reduce: (state, value) -> state; it may change it in place.
        initial: makes the state of no values.
        merge: (state, state) -> state, for sessions; None: they raise.
        value_type: the state's type; None: ``initial``, where it is a type.
    """

    def __init__(
        self,
        of: Any = None,
        *,
        reduce: Callable[[Any, Any], R],
        initial: Callable[[], R],
        merge: Callable[[R, R], R] | None = None,
        value_type: Any = None,
        **options: Any,
    ) -> None:
        kind = value_type or (initial if inspect.isclass(initial) else Any)
        kept = Kept(kind, initial, reduce, merge or _not_merged, None, kind)
        super().__init__(of, kept, **options)


# -- what they are made of -------------------------------------------------------------------------


def _check(fits: bool, message: str) -> None:  # noqa: FBT001
    if not fits:
        raise ConfigError(message)


def _now(_: Any) -> int:
    return event_time_ms()


def _nothing() -> None:
    return None


def _one_more(count: int, _: Any) -> int:
    return count + 1


def _no_mean() -> list[float]:
    return [0, 0]  # the sum, and of how many


def _add_to_mean(state: list[float], value: float) -> list[float]:
    state[0] += value
    state[1] += 1
    return state


def _join_means(one: list[float], other: list[float]) -> list[float]:
    return [one[0] + other[0], one[1] + other[1]]


def _mean(state: list[float]) -> float | None:
    return state[0] / state[1] if state[1] else None


def _smaller(state: Any, value: Any) -> Any:
    return value if state is None or value < state else state


def _larger(state: Any, value: Any) -> Any:
    return value if state is None or value > state else state


def _earlier(state: Any, value: Any) -> Any:
    return value if state is None or value[0] < state[0] else state


def _later(state: Any, value: Any) -> Any:
    return value if state is None or value[0] >= state[0] else state


def _chosen(
    kind: Any, put: Callable[[Any, Any], Any], read: Callable[[Any], Any] | None = None
) -> Kept:
    """Return how one value of all is kept: None, or the one of two that ``put`` chooses."""

    def join(one: Any, other: Any) -> Any:
        return one if other is None else put(one, other)

    return Kept(_or_none(kind), _nothing, put, join, read, _or_none(kind))


def _timed(kind: Any, put: Callable[[Any, Any], Any]) -> Kept:
    pair = tuple.__class_getitem__((int | float, kind))
    return _chosen(pair, put, _second)._replace(result=_or_none(kind))


def _or_none(kind: Any) -> Any:
    return Any if kind is Any else kind | None


def _second(pair: Any) -> Any:
    return None if pair is None else pair[1]


def _add_to_set(state: set[Any], value: Any) -> set[Any]:
    state.add(value)
    return state


def _descending(values: list[Any]) -> list[Any]:
    return values[::-1]


def _checked_scale(q: tuple[float, ...], error: float, buckets: int) -> float:
    _check(
        bool(q) and all(0 <= each <= 1 for each in q) and 0 < error < 1 and buckets >= 8,  # noqa: PLR2004
        f"quantiles {q}, error={error}, buckets={buckets}: quantiles lie between 0 and 1, as the "
        "error does, and there are 8 buckets at least",
    )
    return scale_of(error)


def _sketch(scale: float, buckets: int, read: Callable[[DDSketch], Any], result: Any) -> Kept:
    def put(state: DDSketch, value: float) -> DDSketch:
        state.add(value, scale, buckets)
        return state

    def join(one: DDSketch, other: DDSketch) -> DDSketch:
        one.merge(other, buckets)
        return one

    return Kept(DDSketch, DDSketch, put, join, read, result)


def _not_merged(_one: Any, _other: Any) -> Any:
    raise ConfigError("a Reduce without merge= cannot be in a table of sessions: give it one")
