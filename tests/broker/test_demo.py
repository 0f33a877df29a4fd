"""The demo: every figure it prints is what the recomputation gets."""

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from agents.workload import Workload
from engine.devbroker import DevBroker
from engine.torture.oracle import recompute
from tests.broker.conftest import need_kafka
from tests.shell import ROOT, error_of, headrace, need_tansu
from tests.visits import sessions_from_access_log

pytestmark = [pytest.mark.broker, pytest.mark.timeout(150)]

ACCESS_LOG = ROOT.parent / "shared" / "data" / "access.log"
KEYS = [
    "events", "enriched", "unmatched", "dead_letters", "sessions", "counts", "conversions",
    "guarantee", "broker", "seconds", "events_per_second",
]  # fmt: skip


def figures(done: subprocess.CompletedProcess) -> dict:
    """Return the JSON object that a demo ends with."""
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert list(result) == KEYS
    return result


def expected(events: int, users: int, seed: int) -> dict[str, int]:
    """Return what the recomputation makes of the demo's input."""
    work = Workload(events=events, users=users, seed=seed)
    profiles = {key.decode(): msgspec.json.decode(value) for key, value, _ in work.profiles()}
    truth = recompute([(0, *record) for record in work.raw_events()], profiles)
    return {
        "events": events,
        "enriched": sum(1 for row in truth.enriched if row.profile),
        "unmatched": truth.unmatched,
        "dead_letters": len(truth.dead_letters),
        "sessions": sum(map(len, truth.sessions.values())),
        "counts": len(truth.counts),
        "conversions": len(truth.conversions),
    }


@pytest.mark.slow
def test_the_demo_counts_what_the_recomputation_counts() -> None:
    """With a broker of its own; every figure is equal."""
    need_kafka()
    result = figures(headrace("demo", "--events", 20_000, "--json"))
    truth = expected(20_000, 10_000, 1)  # the defaults
    assert {name: result[name] for name in truth} == truth
    assert result["events"] == result["enriched"] + result["unmatched"] + result["dead_letters"]
    assert result["guarantee"] == "exactly_once"
    assert result["broker"].startswith("Apache Kafka")


@pytest.mark.slow
def test_the_demo_shares_the_work_among_replicas_and_refuses_leftovers(
    fresh_kafka: DevBroker,
) -> None:
    """Two worker processes on a given broker; a second demo does not count the first one's."""
    arguments = ("demo", "--events", 20_000, "--users", 500, "--broker", fresh_kafka.bootstrap)
    result = figures(headrace(*arguments, "--replicas", 2, "--seed", 5, "--json"))
    truth = expected(20_000, 500, 5)
    assert {name: result[name] for name in truth} == truth
    refused = error_of(headrace(*arguments))
    assert refused.startswith(f"topics at {fresh_kafka.bootstrap} hold records already: ")
    assert "raw-events" in refused
    assert "--fresh" in refused
    narrow = error_of(headrace(*arguments, "--partitions", 3))
    assert "--fresh" in narrow
    again = figures(headrace(*arguments, "--fresh", "--partitions", 3, "--seed", 9, "--json"))
    truth = expected(20_000, 500, 9)
    assert {name: again[name] for name in truth} == truth


@pytest.mark.slow
def test_unmatched_events_can_be_kept_and_sessions_told_as_they_change() -> None:
    """The identity of the figures holds, and the number of sessions is the same."""
    need_kafka()
    result = figures(
        headrace("demo", "--events", 5_000, "--users", 100, "--seed", 6, "--keep-unmatched",
                 "--sessions", "updates", "--json")
    )  # fmt: skip
    truth = expected(5_000, 100, 6)
    assert result["enriched"] == truth["enriched"] + truth["unmatched"]
    assert result["unmatched"] == 0
    assert result["sessions"] == truth["sessions"]


@pytest.mark.slow
def test_the_demo_runs_on_real_requests() -> None:
    """10,000 lines of a web server's log: each an event, and as many sessions as there were."""
    need_kafka()
    if not ACCESS_LOG.exists():
        if os.environ.get("CI") == "true" and (ROOT.parent / "shared").exists():
            pytest.fail(f"there is shared data, but no {ACCESS_LOG}")
        pytest.skip("the recorded access log is not beside the checkout")
    result = figures(headrace("demo", "--input", ACCESS_LOG, "--json"))
    assert result["events"] == 10_000
    assert result["dead_letters"] == result["unmatched"] == 0
    assert result["enriched"] == 10_000
    assert result["sessions"] == sum(map(len, sessions_from_access_log(ACCESS_LOG).values()))


@pytest.mark.slow
def test_without_java_the_demo_says_that_it_is_at_least_once() -> None:
    """Tansu from its wheel: the same figures, another promise."""
    need_tansu()
    bare = str(Path(sys.executable).parent)
    done = headrace("demo", "--events", 5_000, "--users", 100, "--seed", 7, "--json", PATH=bare)
    result = figures(done)
    truth = expected(5_000, 100, 7)
    assert {name: result[name] for name in truth} == truth
    assert result["guarantee"] == "at_least_once"
    assert "AT LEAST ONCE (no transactions" in done.stderr
    assert result["broker"].startswith("Tansu")
    assert "AT LEAST ONCE" in done.stderr.splitlines()[0]
