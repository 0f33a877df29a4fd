"""What an aggregate costs: ns an event, and bytes of state. ``python -m benchmarks.aggregates``.

Each alone in a class, less what an empty class takes; 50,000 events, the best of seven runs.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec

from engine import aggregates as kinds
from engine.aggregates import Aggregates
from tables.codec import value_codec

EVENTS = 50_000
RUNS = 7


class Visit(msgspec.Struct, frozen=True, gc=False):
    user: str
    kind: str
    page: str
    value: float
    at: int


VISITS = [
    Visit(
        f"user_{number * 7919 % EVENTS}", ("page_view", "click")[number % 3 == 0],
        f"/page/{number * 31 % 1_000}", 1 + number * 17 % 10_000 / 7, number,
    )
    for number in range(EVENTS)
]  # fmt: skip

MEASURED: dict[str, Any] = {
    "Count()": kinds.Count,
    'Count(where={"kind": "click"})': lambda: kinds.Count(where={"kind": "click"}),
    'Sum("value")': lambda: kinds.Sum("value"),
    'Avg("value")': lambda: kinds.Avg("value"),
    'Min("value")': lambda: kinds.Min("value"),
    'Max("value")': lambda: kinds.Max("value"),
    'First("page", at="at")': lambda: kinds.First("page", at="at"),
    'Last("page", at="at")': lambda: kinds.Last("page", at="at"),
    'Distinct("page"), 1,000 values': lambda: kinds.Distinct("page"),
    'Distinct("page", exact=False), 1,000': lambda: kinds.Distinct("page", exact=False),
    'Distinct("user", exact=False), 50,000': lambda: kinds.Distinct("user", exact=False),
    'Quantile("value", 0.99)': lambda: kinds.Quantile("value", 0.99),
    'TopK("page", 10), 1,000 values': lambda: kinds.TopK("page", 10),
    'Largest("value", 10)': lambda: kinds.Largest("value", 10),
    'Collect("page", most=100)': lambda: kinds.Collect("page", most=100),
    'Reduce("value", reduce=max, initial=float)': lambda: kinds.Reduce(
        "value", reduce=max, initial=float
    ),
}


def measured(**fields: Any) -> tuple[float, int]:
    """Return ns an event and the bytes of the state after all."""
    kind: Any = type(Aggregates)("Measured", (Aggregates,), fields)
    best = float("inf")
    for _ in range(RUNS):
        totals = kind()
        add = totals.add
        began = time.thread_time_ns()
        for visit in VISITS:
            add(visit)
        best = min(best, time.thread_time_ns() - began)
    return best / EVENTS, len(value_codec(kind).encode(totals))


def main() -> None:
    empty, _ = measured()
    print(f"{'':46}{'ns/event':>10}{'bytes':>8}")
    print(f"{'an empty class':46}{empty:10.0f}{1:8}")
    for name, make in MEASURED.items():
        ns, size = measured(field=make())
        print(f"{name:46}{ns - empty:10.0f}{size - 1:8}")
    together = {f"field{number}": make() for number, make in enumerate(MEASURED.values())}
    ns, size = measured(**together)
    print(f"{'all of them':46}{ns:10.0f}{size:8}")


if __name__ == "__main__":
    main()
