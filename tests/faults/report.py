"""What a night of faults came to: how often each struck, what failed, and what that proves."""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.faults.catalogue import Row

CONFIDENCE = 0.95


@dataclass
class Failure:
    """A trial that failed: how to repeat it, what it said, where its files are."""

    trial: int
    dose: int
    error: str
    kept: str


@dataclass
class Tally:
    """What was done of one row."""

    row: str
    fault: str
    unit: str
    expects: str
    invariants: str
    planned: int
    done: int = 0
    trials: int = 0
    seconds: float = 0.0
    failures: list[Failure] = field(default_factory=list)

    @classmethod
    def of(cls, row: Row, planned: int) -> "Tally":
        """Begin to count."""
        expects = " ".join(row.expects.split())
        return cls(row.name, row.fault, row.unit, expects, row.invariants, planned)

    @property
    def bound(self) -> float | None:
        """The upper bound on how often such a fault makes a failure; None before the first."""
        return upper_bound(len(self.failures), self.done) if self.done else None


def upper_bound(failures: int, count: int) -> float:
    """Return the upper end of the one-sided 95 % confidence interval of a failure rate.

    Without failures it is about 3 / count (the rule of three); else Clopper and Pearson's (1934):
    the rate at which so few failures, or fewer, would be seen in one of twenty such nights.
    """
    if failures >= count:
        return 1.0
    low, high = failures / count, 1.0
    for _ in range(60):
        rate = (low + high) / 2
        if _at_most(failures, count, rate) > 1 - CONFIDENCE:
            low = rate
        else:
            high = rate
    return high


def _at_most(failures: int, count: int, rate: float) -> float:
    """Return the probability of at most so many failures in ``count`` independent trials."""
    return sum(
        math.exp(
            math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1)
            + k * math.log(rate) + (count - k) * math.log1p(-rate)
        )
        for k in range(failures + 1)
    )  # fmt: skip


@dataclass
class Report:
    """All rows of one run.

    Attributes:
        seed: all chance comes of it.
        commit: of the code that was tried.
        began: when (ISO 8601).
        nightly: whether the doses were the full ones.
    """

    seed: int
    commit: str
    began: str
    nightly: bool = True
    tallies: list[Tally] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether anything did."""
        return any(tally.failures for tally in self.tallies)

    def write(self, directory: Path) -> None:
        """Write ``report.json`` and ``report.md``."""
        (directory / "report.json").write_text(json.dumps(self.as_dict(), indent=2) + "\n")
        (directory / "report.md").write_text(self.as_markdown())

    def as_dict(self) -> dict[str, object]:
        """Return it as what JSON can hold."""
        rows = [{**asdict(tally), "upper_bound_95": tally.bound} for tally in self.tallies]
        head: dict[str, object] = {"seed": self.seed, "commit": self.commit, "began": self.began}
        head["nightly"] = self.nightly
        return {**head, "failed": self.failed, "rows": rows}

    def as_markdown(self) -> str:
        """Return it as a page to read."""
        lines = [
            "# Faults",
            "",
            f"Begun {self.began}, commit {self.commit}, seed {self.seed}.",
            "",
            "| row | fault | done | of | trials | failed | failures (95 %) | invariants | s |",
            "|---|---|---:|---:|---:|---:|---:|---|---:|",
        ]
        for tally in self.tallies:
            bound = "" if tally.bound is None else f"< {100 * tally.bound:.3g} %"
            lines.append(
                f"| {tally.row} | {tally.fault} | {tally.done:,} {tally.unit} | {tally.planned:,} "
                f"| {tally.trials} | {len(tally.failures)} | {bound} | {tally.invariants} "
                f"| {tally.seconds:.0f} |"
            )
        for tally in self.tallies:
            for failure in tally.failures:
                full = "--nightly " if self.nightly else ""
                again = f"{full}--rows {tally.row} --seed {self.seed} --trial {failure.trial}"
                lines += [
                    "",
                    f"## {tally.row}, trial {failure.trial}",
                    "",
                    f"Expected: {tally.expects}",
                    "",
                    f"Again: `python -m tests.faults {again}`",
                    "",
                    f"Kept: {failure.kept}",
                    "",
                    "```",
                    failure.error,
                    "```",
                ]
        return "\n".join([*lines, ""])
