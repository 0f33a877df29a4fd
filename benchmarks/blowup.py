"""No quadratic blow-up: each hard case beside its easy one, on a real RocksDB, without Kafka.

python -m benchmarks.blowup [--quick] [--repeats R] [--only WORD]

A case is one partition of a table or of an operator, as a task has it. Events are given to it one
by one; after every 1,000 its changes are cut and written to the store, as a commit does. What came
before the measured part (sessions that are to be open, matches that are to be partial) is not
timed. The easy case has the same events but for what is hard. The best of the repeats counts, of
CPU time. It exits with 1 if a hard case takes over three times as long an event as its easy one.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import operatorloads, patternloads, tableloads, timeloads
from benchmarks.loads import Case, Load
from tables.store import Memory, RocksStore

RATIO_MAX = 3.0
BETWEEN_CUTS = 1_000
COLLECT_AFTER = 200_000
"""As the engine has it."""

Row = tuple[Any, ...]


class Measured(NamedTuple):
    """A pair of cases, in us of CPU time an event."""

    case: Case
    easy: float
    hard: float

    @property
    def ratio(self) -> float:
        """How many times as long the hard one takes."""
        return self.hard / self.easy


def cases(part: int) -> list[Case]:
    """Return all cases, with a ``part``-th of the events, keys, sessions and matches."""
    return [
        *tableloads.cases(part),
        *timeloads.cases(part),
        *operatorloads.cases(part),
        *patternloads.cases(part),
    ]


def measure(load: Load, events: int, home: Path) -> float:
    """Return the us of CPU time that an event takes."""
    handle = load.handle()
    handles = [*getattr(handle, "uses", ()), handle]
    store = RocksStore(home, [each.name for each in handles], Memory())
    parts = {each.name: each.open(store, lambda *_: None) for each in handles}
    if getattr(handle, "uses", ()):
        parts[handle.name].bind(parts)
    step, rows = load.step(*parts.values()), load.rows()
    for _ in play(step, parts, store, islice(rows, load.before)):
        pass
    gc.collect()
    spent = sum(play(step, parts, store, islice(rows, events)))
    store.close()
    return spent / events * 1e6


def play(
    step: Callable[..., Any], parts: Mapping[str, Any], store: Any, rows: Iterable[Row]
) -> Iterator[float]:
    """Give partitions all events; yield the seconds that each 1,000 take with their commit."""
    waiting = iter(rows)
    while some := list(islice(waiting, BETWEEN_CUTS)):
        began = time.process_time()
        for row in some:
            step(*row)
        for part in parts.values():
            store.write(part.cut().store)
            part.committed()
            part.held(), part.dirty()  # once a round of the loop
        yield time.process_time() - began


def compare(case: Case, repeats: int) -> Measured:
    """Measure a pair, by turns."""
    best = {"easy": float("inf"), "hard": float("inf")}
    for _ in range(repeats):
        for which, load in (("easy", case.easy), ("hard", case.hard)):
            with tempfile.TemporaryDirectory(prefix="headrace-blowup-") as home:
                took = measure(load, case.events, Path(home) / "store")
            best[which] = min(best[which], took)
    return Measured(case, best["easy"], best["hard"])


def table(rows: Iterable[Measured]) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    yield "| kind | easy | hard | events | easy, events/s | hard, events/s | times as long |"
    yield "|---|---|---|---:|---:|---:|---:|"
    for row in rows:
        case = row.case
        yield (
            f"| {case.kind} | {case.easy.what} | {case.hard.what} | {case.events:,} "
            f"| {1e6 / row.easy:,.0f} | {1e6 / row.hard:,.0f} "
            f"| {row.ratio:.2f}{'' if row.ratio <= RATIO_MAX else ' (!)'} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.blowup", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default="", help="only the kinds with this word in them")
    given = parser.parse_args()
    gc.set_threshold(COLLECT_AFTER, 20, 50)
    rows = []
    for case in cases(10 if given.quick else 1):
        if given.only in f"{case.kind}, {case.hard.what}":
            rows.append(compare(case, given.repeats))
            print(f"{case.kind}, {case.hard.what}: {rows[-1].ratio:.2f}", file=sys.stderr)
    print("\n".join(table(rows)))
    sys.exit(any(row.ratio > RATIO_MAX for row in rows))


if __name__ == "__main__":
    main()
