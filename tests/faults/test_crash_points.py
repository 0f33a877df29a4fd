"""A worker dies at each named place, and nothing is lost or doubled."""

import asyncio

import pytest

from agents.workload import Workload
from engine.clock import SystemClock
from engine.crashpoint import EXIT_CODE, POINTS
from engine.devbroker import start_kafka
from engine.torture.crashes import Crash, Input, crash_everywhere
from tests.broker.conftest import need_kafka

EVENTS = 4_000

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(280)]


@pytest.fixture(scope="module")
def crashes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Crash]:
    """One trial a point, on one Kafka."""
    need_kafka()
    home = tmp_path_factory.mktemp("crash-points")
    work = Workload(events=EVENTS, users=200, seed=11)
    given = Input(list(work.profiles()), list(work.raw_events()))
    with start_kafka(home / "kafka") as kafka:
        found = asyncio.run(crash_everywhere(kafka.bootstrap, home, given, SystemClock()))
    return {crash.point: crash for crash in found}


@pytest.mark.parametrize("point", POINTS)
def test_a_worker_that_dies_at_a_named_place_costs_nothing(
    crashes: dict[str, Crash], point: str
) -> None:
    """It dies there and nowhere else, comes back, and the checker finds nothing."""
    crash = crashes[point]
    assert crash.exit_code == EXIT_CODE, f"it ended with {crash.exit_code}"
    assert f"crash point {point}:" in crash.last_words
    assert crash.verdict.events == EVENTS
    assert not crash.verdict.findings, str(crash.verdict)
