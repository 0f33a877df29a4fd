"""The failure catalogue: every fault that is tried, how often, and what must come of it."""

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from tests.faults.cluster import Site

Scenario = Callable[[Site, Path, random.Random, int], None]
Place = Callable[[Path], AbstractContextManager[Site]]


@dataclass(frozen=True)
class Row:
    """One fault.

    Attributes:
        number: in the catalogue.
        fault: what goes wrong.
        unit: what is counted.
        ci: the dose in the continuous build, in one trial.
        nightly: the dose of a night, in trials of at most ``at_once``.
        expects: what must come of it, beside the invariants.
        invariants: which of them are checked.
        place: the cluster it needs.
        run: does it: site, an empty directory, the source of all chance, the dose.
    """

    number: int
    fault: str
    unit: str
    ci: int
    nightly: int
    at_once: int
    expects: str
    invariants: str
    place: Place
    run: Scenario

    @property
    def name(self) -> str:
        """A short name: the row's number and the scenario's."""
        return f"{self.number:02d}-{self.run.__name__.replace('_', '-')}"


class Catalogue:
    """All rows; a scenario enters itself with :meth:`row`."""

    def __init__(self) -> None:
        self._rows: list[Row] = []

    def __iter__(self) -> Iterator[Row]:
        return iter(sorted(self._rows, key=lambda row: row.name))

    def row(self, number: int, fault: str, **rest: object) -> Callable[[Scenario], Scenario]:
        """Enter a scenario; its docstring says what must come of it."""

        def enter(run: Scenario) -> Scenario:
            self._rows.append(
                Row(number, fault, expects=(run.__doc__ or "").strip(), run=run, **rest)
            )
            return run

        return enter


catalogue = Catalogue()
