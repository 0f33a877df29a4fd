"""The benchmark runs, says what it should, and headrace is far ahead of stock Faust."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from engine.config import in_ci
from engine.devbroker import kafka_available

ROOT = Path(__file__).parents[2]
FIGURES = {"events_per_second", "cpu_seconds_per_million", "rss_mb", "guarantee"}


@pytest.mark.broker
@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.skipif(kafka_available() is not None and not in_ci(), reason="there is no Kafka here")
def test_quick_run_reports_both_engines_and_a_tenfold_lead() -> None:
    """A run of a minute: exit 0 says that headrace's results were exact."""
    what = ["--events", "80000", "--jobs", "enrich", "--engines", "headrace,faust"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "--json", *what],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=220,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    *table, last = done.stdout.strip().splitlines()
    assert table[0].startswith("| job | engine |")
    jobs = json.loads(last)["jobs"]
    assert set(jobs) == {"enrich"}
    assert set(jobs["enrich"]) == {"headrace", "faust"}
    for figures in jobs["enrich"].values():
        assert set(figures) == FIGURES
        assert all(figures[name] > 0 for name in FIGURES - {"guarantee"})
    ours, theirs = jobs["enrich"]["headrace"], jobs["enrich"]["faust"]
    assert (ours["guarantee"], theirs["guarantee"]) == ("exactly_once", "at_least_once")
    assert ours["events_per_second"] >= 10 * theirs["events_per_second"]
