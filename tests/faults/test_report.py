"""The figures of a report: what so many faults without a failure, or with some, prove."""

import json
from pathlib import Path

import pytest

from tests.faults.report import Failure, Report, Tally, upper_bound
from tests.faults.rows import ROWS


@pytest.mark.parametrize(
    ("failures", "count", "bound"),
    [(0, 300, 0.009936), (0, 3_000, 0.000998), (1, 100, 0.046560), (1, 2, 0.974679), (2, 2, 1.0)],
)
def test_the_upper_bound_is_the_one_of_the_tables(failures: int, count: int, bound: float) -> None:
    """Without failures the rule of three; else Clopper and Pearson's, one-sided, 95 %."""
    assert upper_bound(failures, count) == pytest.approx(bound, rel=1e-3)


def test_a_report_says_what_failed_and_how_to_see_it_again(tmp_path: Path) -> None:
    """Two rows, one with a failure; as a page and as JSON."""
    report = Report(seed=7, commit="abc", began="2026-01-01T00:00:00+00:00")
    good, bad = Tally.of(ROWS[0], 300), Tally.of(ROWS[1], 60)
    good.done, good.trials = 300, 5
    bad.done, bad.trials = 12, 1
    bad.failures.append(Failure(0, 12, "AssertionError: I2", "kept/here"))
    report.tallies = [good, bad]
    report.write(tmp_path)
    page = (tmp_path / "report.md").read_text()
    assert "| 300 | 5 | 0 | < 0.994 % |" in page
    assert f"--rows {bad.row} --seed 7 --trial 0" in page
    assert "AssertionError: I2" in page
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["failed"] is True
    assert [row["done"] for row in found["rows"]] == [300, 12]
    assert found["rows"][0]["upper_bound_95"] == pytest.approx(0.009936, rel=1e-3)


def test_rows_have_names_of_their_own() -> None:
    """They are asked for by name."""
    assert len({row.name for row in ROWS}) == len(ROWS)
