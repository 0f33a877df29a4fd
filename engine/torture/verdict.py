"""What a check has found, by invariant."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

INVARIANTS = {
    "I1": "every input is in the outputs or the dead letters",
    "I2": "nothing comes out twice, or from nowhere",
    "I3": "outputs of a key are in the order of its inputs",
    "I4": "tables, stores and what windows emit equal the recomputation",
    "I5": "committed offsets never go back, and reach the end",
    "I6": "no transaction is left open",
    "I7": "no two workers commit for one partition in a generation of the group",
    "I8": "what a killed worker had goes on with a new owner",
    "I9": "memory and open files of a worker are bounded",
}
SHOWN = 5


class Finding(NamedTuple):
    """An invariant that does not hold: how often, and where first."""

    invariant: str
    places: int
    text: str


@dataclass
class Verdict:
    """What came of a check.

    Attributes:
        events: inputs that were looked at.
        lost: inputs with neither an output nor a dead letter.
        duplicated: outputs and dead letters that came more often than they should.
        table_differences: rows of tables, stores and results that are not the recomputation's.
    """

    events: int = 0
    lost: int = 0
    duplicated: int = 0
    table_differences: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def broken(self) -> list[str]:
        """The invariants that do not hold, in order."""
        return sorted({finding.invariant for finding in self.findings})

    def add(self, invariant: str, what: str, where: list[str]) -> int:
        """Note that an invariant is broken at some places; return how many those are."""
        if where:
            more = f" and {len(where) - SHOWN:,} more" if len(where) > SHOWN else ""
            text = f"{what}: {', '.join(where[:SHOWN])}{more}"
            self.findings.append(Finding(invariant, len(where), text))
        return len(where)

    def merge(self, other: Verdict) -> None:
        """Take over what another check has found."""
        self.events += other.events
        self.lost += other.lost
        self.duplicated += other.duplicated
        self.table_differences += other.table_differences
        self.findings += other.findings

    def __str__(self) -> str:
        return (
            "\n".join(
                f"{invariant} ({INVARIANTS[invariant]}): {text}"
                for invariant, _, text in self.findings
            )
            or "every invariant holds"
        )
