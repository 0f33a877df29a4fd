"""Warm copies on real Kafka: they follow, they take over, and they are byte for byte the same."""

import time
from pathlib import Path

import pytest

from engine.devbroker import DevBroker
from tables.store import Memory, RocksStore
from tests.broker.fleet import wait_until
from tests.broker.test_exactly_once import PARTITIONS, Trial

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(240)]

FAMILIES = ("counts", "sessions", "unmatched", "user-profiles")


def dump(home: Path) -> dict[tuple[str, str], list[tuple[bytes, bytes]]]:
    """Return what a stopped worker's stores hold, by task and table."""
    memory = Memory()
    found = {}
    for path in sorted(home.glob("**/worker-0/*_*")):
        store = RocksStore(path, FAMILIES, memory)
        for family in FAMILIES:
            found[path.name, family] = store.scan(family)
        store.close()
    return found


def test_a_copy_follows_and_takes_over(fresh_kafka: DevBroker, tmp_path: Path) -> None:
    """The worker that has the tasks is killed: the other one restores next to nothing."""
    trial = Trial(fresh_kafka, tmp_path, events=60_000, seed=11, standby_replicas="1")
    with trial.fleet as fleet:
        for name in ("one", "two"):
            fleet.start(name)
        trial.feed(0.6)
        wait_until(lambda: trial.done() >= len(trial.placed), timeout_s=90, what="input is left")
        wait_until(lambda: "new standbys" in fleet.log("two"), timeout_s=30, what="no standby")
        time.sleep(2)  # some looks of a quarter of a second
        fleet.kill("one")
        trial.feed(0.4)
        took = wait_until(
            lambda: trial.done() >= len(trial.placed), timeout_s=60, what="input is left"
        )
        assert took < 2 + 5 + 10, "session timeout, takeover, work"
        restored = [
            int(line.split("restored ")[1].split()[0].replace(",", ""))
            for line in fleet.log("two").splitlines()
            if "restored" in line and "of about" not in line
        ]
        assert sum(restored) < 2_000, restored
        trial.settle()


def test_copies_are_equal_to_what_they_are_copies_of(
    fresh_kafka: DevBroker, tmp_path: Path
) -> None:
    """Each of two workers ends up with every task's store: its own and the other's."""
    trial = Trial(fresh_kafka, tmp_path, events=30_000, seed=12, standby_replicas="1")
    with trial.fleet as fleet:
        for name in ("one", "two"):
            fleet.start(name)
        trial.feed(1.0)
        wait_until(lambda: trial.done() >= len(trial.placed), timeout_s=90, what="input is left")
        time.sleep(3)
        fleet.kill("one")  # as it is: a worker that leaves gives its tasks to the other one
        fleet.kill("two")
    one, two = dump(tmp_path / "one"), dump(tmp_path / "two")
    assert len(one) == len(two) >= PARTITIONS * len(FAMILIES)
    assert {name: rows for name, rows in one.items() if two[name] != rows} == {}
    assert sum(map(len, one.values())) > 1_000
