"""Many seeds, on all cores: what failed, how it is repeated, and how often each fault fired."""

import gc
import logging
import os
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import NamedTuple

from tests.simulation.faults import POINTS
from tests.simulation.simulation import Simulation, trace_text

CHUNK = 10
TAIL = 60
HAPPENINGS = (
    "commit", "abort", "transaction timed out", "generation", "session expired",
    "instance taken over", "found no broker",
)  # fmt: skip
"""What the trace tells of that is no fault, but a consequence."""


class Failure(NamedTuple):
    """A seed on which something does not hold."""

    seed: int
    error: str
    tail: str

    def __str__(self):
        return (
            f"{self.tail}\nseed {self.seed}: {self.error}\n"
            f"repeat it: python -m tests.simulation --seed {self.seed}"
        )


class Outcome(NamedTuple):
    """What a campaign has come to.

    Attributes:
        fired: how often each fault, and each of :data:`HAPPENINGS`, was seen.
        done_at: how often something was done to workers at each point.
    """

    seeds: int
    clicks: int
    fired: Counter[str]
    done_at: Counter[str]
    failures: list[Failure]

    def __add__(self, other):
        return Outcome(
            self.seeds + other.seeds,
            self.clicks + other.clicks,
            self.fired + other.fired,
            self.done_at + other.done_at,
            self.failures + other.failures,
        )


def run_seeds(seeds):
    """Run some seeds in this process; return their outcome."""
    logging.disable(logging.CRITICAL)  # workers die by the dozen here
    outcome = Outcome(0, 0, Counter(), Counter(), [])
    for seed in seeds:
        run = Simulation(seed)
        failures = []
        try:
            run.run()
        except Exception as error:  # noqa: BLE001  whatever it is, the seed must be told
            failures.append(Failure(seed, str(error), trace_text(run.cluster.events[-TAIL:])))
        told = Counter(event[1] for event in run.cluster.events if event[1] in HAPPENINGS)
        faults = run.faults
        outcome += Outcome(1, run.clicks, faults.fired + told, faults.done_at, failures)
    gc.collect()
    return outcome


def campaign(seeds, jobs=None, failures_max=5):
    """Run seeds in parallel processes; stop early once so many have failed."""
    seeds = list(seeds)
    outcome = Outcome(0, 0, Counter(), Counter(), [])
    with ProcessPoolExecutor(jobs or os.cpu_count()) as pool:
        chunks = [seeds[start : start + CHUNK] for start in range(0, len(seeds), CHUNK)]
        for done in as_completed([pool.submit(run_seeds, chunk) for chunk in chunks]):
            outcome += done.result()
            if len(outcome.failures) >= failures_max:
                pool.shutdown(cancel_futures=True)
                break
    return outcome


def report(outcome):
    """Return the lines that tell of a campaign."""
    lines = [f"{what:28} {count:9,}" for what, count in sorted(outcome.fired.items())]
    missed = [point for point in POINTS if point not in outcome.done_at]
    lines.append(
        f"kills, freezes and leaves at {len(POINTS) - len(missed)} of {len(POINTS)} points"
    )
    if missed and outcome.seeds >= len(POINTS) * 10:
        lines.append(f"nothing was done at: {', '.join(missed)}")
    lines += [str(failure) for failure in outcome.failures]
    lines.append(
        f"{outcome.seeds} seeds, {outcome.clicks:,} events, "
        f"{outcome.fired.total():,} faults and consequences, {len(outcome.failures)} failures"
    )
    return lines
