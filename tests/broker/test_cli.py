"""Topics, files and workers on a real broker."""

import asyncio
import contextlib
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from agents.workload import Workload
from engine.devbroker import DevBroker
from engine.torture import observer
from tests.broker.fleet import Fleet, wait_until
from tests.shell import ROOT, environ, error_of, headrace

pytestmark = [pytest.mark.broker, pytest.mark.timeout(150)]

DAY_MS = 86_400_000


# -- topics -----------------------------------------------------------------------------------


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
    """The defaults, within a cluster of one; options; and a topic that is there stays as it is."""
    broker = ("--broker", fresh_kafka.bootstrap)
    assert "there are no topics yet" in headrace("topics", "list", *broker).stdout
    made = headrace("topics", "create", "plain", "other", *broker)
    assert made.stdout == "created plain (12 partitions)\ncreated other (12 partitions)\n"
    made = headrace(
        "topics", "create", "kept", "plain", "--partitions", 3, "--retention", "forever",
        "--segment", "1h", "--compact", *broker,
    )  # fmt: skip
    assert made.stdout == "created kept (3 partitions)\nplain was there already (12 partitions)\n"
    made = headrace("topics", "create", "short", "--retention", "36h", "--segment", "1h", *broker)
    assert made.returncode == 0, made.stderr

    listed = json.loads(headrace("topics", "list", "--json", *broker).stdout)
    assert [tuple(row.values()) for row in listed] == [
        ("kept", 3, 1, 0), ("other", 12, 1, 0), ("plain", 12, 1, 0), ("short", 12, 1, 0),
    ]  # fmt: skip
    shown = headrace("topics", "list", *broker).stdout.splitlines()
    assert shown[0].split() == ["topic", "partitions", "replicas", "records"]
    assert shown[1].split() == ["kept", "3", "1", "0"]

    settings = asyncio.run(described(fresh_kafka.bootstrap, "plain"))
    assert settings["retention.ms"] == str(7 * DAY_MS)
    assert settings["segment.ms"] == str(DAY_MS)
    assert settings["min.insync.replicas"] == "1"
    assert settings["cleanup.policy"] == "delete"
    kept = asyncio.run(described(fresh_kafka.bootstrap, "kept"))
    assert (kept["cleanup.policy"], kept["segment.ms"]) == ("compact", "3600000")
    short = asyncio.run(described(fresh_kafka.bootstrap, "short"))
    assert (short["retention.ms"], short["cleanup.policy"]) == ("129600000", "delete")


def test_an_apps_topics_are_created_with_what_its_code_says(fresh_kafka: DevBroker) -> None:
    """All that it reads and writes, as wide as asked for; what the engine makes is not its."""
    made = headrace(
        "topics", "create", "--module", "agents", "--partitions", 2,
        "--broker", fresh_kafka.bootstrap,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert sorted(line.split()[1] for line in made.stdout.splitlines()) == [
        "conversions", "enriched-events", "event-counts", "raw-events", "user-profiles",
        "user-sessions",
    ]  # fmt: skip
    profiles = asyncio.run(described(fresh_kafka.bootstrap, "user-profiles"))
    assert profiles["cleanup.policy"] == "compact"


def test_a_topic_that_the_cluster_refuses_is_one_sentence(kafka: DevBroker) -> None:
    """With its name and the cluster's reason."""
    for name in ("no_good", "no.good"):  # a dot and an underscore are one in metrics' names
        done = headrace("topics", "create", name, "--broker", kafka.bootstrap)
    assert error_of(done).startswith("the cluster does not create topic no.good: ")


# -- files ------------------------------------------------------------------------------------

LOG = (
    b'10.0.0.1 - - [17/May/2015:10:05:03 +0000] "GET /a HTTP/1.1" 200 99 "-" "Mozilla/5.0"\n'
    b"what is this\n"
    b'10.0.0.2 - - [17/May/2015:10:05:04 +0200] "POST /login HTTP/1.1" 302 - "-" "curl/7"\n'
)
TIMES = [1_431_857_103_000, 1_431_849_904_000]


def test_files_go_into_topics_line_by_line(kafka: DevBroker, tmp_path: Path) -> None:
    """JSON lines packed by gzip, CSV with and without types, an access log."""
    with gzip.open(tmp_path / "orders.jsonl.gz", "wt") as lines:
        lines.writelines(json.dumps({"id": f"o{n}", "at": n}) + "\n" for n in range(1_000))
    (tmp_path / "prices.csv").write_text("item,price\na,1.5\nb,2\n")
    (tmp_path / "texts.csv").write_text('item,price\n"a, b",1.5\n')
    (tmp_path / "requests.log").write_bytes(LOG.replace(b"what is this\n", b""))
    for name, options in (
        ("orders.jsonl.gz", ("--key-field", "id", "--time-field", "at", "--partitions", 2)),
        ("prices.csv", ("--typed", "--partitions", 1)),
        ("texts.csv", ("--key-field", "item", "--partitions", 1)),
        ("requests.log", ("--key-field", "host", "--time-field", "time", "--partitions", 1)),
    ):
        topic = f"in-{name.partition('.')[0]}"
        done = headrace(
            "ingest", tmp_path / name, "--topic", topic, "--broker", kafka.bootstrap, *options
        )
        assert done.returncode == 0, done.stderr
        assert f"records to {topic} in " in done.stdout
        assert done.stdout.endswith(" 0 bad lines\n")
    seen = asyncio.run(
        observer.observe(kafka.bootstrap, ["in-orders", "in-prices", "in-texts", "in-requests"])
    )
    assert {r.key: r.timestamp for r in seen.topics["in-orders"]} == {
        f"o{n}".encode(): n for n in range(1_000)
    }
    assert {r.partition for r in seen.topics["in-orders"]} == {0, 1}
    assert seen.json("in-prices") == [{"item": "a", "price": 1.5}, {"item": "b", "price": 2}]
    assert seen.json("in-texts") == [{"item": "a, b", "price": "1.5"}]
    assert [r.key for r in seen.topics["in-texts"]] == [b"a, b"]
    requests = seen.topics["in-requests"]
    assert [(r.key, r.timestamp) for r in requests] == [
        (b"10.0.0.1", TIMES[0]), (b"10.0.0.2", TIMES[1]),
    ]  # fmt: skip
    assert json.loads(requests[1].value)["path"] == "/login"


def test_requests_go_in_as_the_demos_events(kafka: DevBroker, tmp_path: Path) -> None:
    """A line that is none goes too: the contract refuses it, and it is not lost."""
    (tmp_path / "access.log").write_bytes(LOG)
    done = headrace(
        "ingest", tmp_path / "access.log", "--topic", "as-events", "--as-events",
        "--partitions", 1, "--broker", kafka.bootstrap,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seen = asyncio.run(observer.observe(kafka.bootstrap, ["as-events"])).topics["as-events"]
    assert sorted(r.timestamp for r in seen) == sorted([TIMES[0], TIMES[0], TIMES[1]])
    assert [r.value for r in seen if r.key is None] == [b"what is this"]
    kinds = {json.loads(r.value)["event_type"] for r in seen if r.key is not None}
    assert kinds == {"page_view", "login"}


def test_bad_lines_are_told_and_fail_unless_they_may(kafka: DevBroker, tmp_path: Path) -> None:
    """The good ones are there either way; the first few bad ones are named."""
    rows = "".join(f"a{n}\n" if n % 2 else f"a{n},{n}\n" for n in range(20))
    (tmp_path / "rows.csv").write_text("name,number\n" + rows)
    command = ("ingest", tmp_path / "rows.csv", "--broker", kafka.bootstrap, "--partitions", 1)
    failed = headrace(*command, "--topic", "strict")
    assert error_of(failed) == (
        f"10 of the lines of {tmp_path / 'rows.csv'} could not be sent (--skip-bad allows it)"
    )
    told = [line for line in failed.stderr.splitlines() if line.startswith("line ")]
    assert told[0] == "line 3: 1 fields where there are 2 names"
    assert len(told) == 5
    assert "more bad lines are only counted" in failed.stderr
    passed = headrace(*command, "--topic", "lenient", "--skip-bad")
    assert passed.returncode == 0, passed.stderr
    assert passed.stdout.startswith("10 records to lenient in ")
    assert passed.stdout.endswith("10 bad lines\n")
    seen = asyncio.run(observer.observe(kafka.bootstrap, ["strict", "lenient"]))
    wanted = [f"a{n}" for n in range(0, 20, 2)]
    assert [row["name"] for row in seen.json("strict")] == wanted
    assert [row["name"] for row in seen.json("lenient")] == wanted


def test_a_topic_that_is_not_there_is_not_made_by_accident(
    kafka: DevBroker, tmp_path: Path
) -> None:
    """The sentence says both ways to have it."""
    (tmp_path / "a.jsonl").write_text("{}\n")
    sentence = error_of(
        headrace("ingest", tmp_path / "a.jsonl", "--topic", "mistyped", "--broker", kafka.bootstrap)
    )
    assert sentence.startswith("there is no topic mistyped at ")
    assert "headrace topics create mistyped" in sentence
    assert "--partitions" in sentence


# -- workers ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_worker_stops_on_sigterm_with_what_it_did_committed(
    fresh_kafka: DevBroker, tmp_path: Path
) -> None:
    """In the middle of its work, within ten seconds, with exit code 0; the next one goes on."""
    work, bootstrap = Workload(events=60_000, users=50, seed=8), fresh_kafka.bootstrap
    settings = {"retention_ms": "-1", "keep_unmatched": "true"}

    async def load() -> None:
        await observer.create(bootstrap, {"raw-events": {"retention.ms": "-1"}}, 2)
        await observer.produce(bootstrap, "raw-events", work.raw_events(), 2)

    def committed() -> int:
        fleet.check()
        at = asyncio.run(observer.committed(bootstrap, "clickstream", "raw-events", 2))
        return sum(offset for offset in at.values() if offset > 0)

    def came_out() -> int:
        topics = ["enriched-events", "raw-events-dlq"]
        return sum(map(len, asyncio.run(observer.observe(bootstrap, topics)).topics.values()))

    asyncio.run(load())
    with Fleet(tmp_path, bootstrap, settings) as fleet:
        fleet.start("one")
        wait_until(committed, timeout_s=60, what="nothing is committed", every_s=0.05)
        began = time.monotonic()
        assert fleet.stop("one") == 0
        assert time.monotonic() - began < 10
        done = committed()
        assert 0 < done < 60_000
        assert came_out() == done
        fleet.start("one")
        wait_until(lambda: committed() == 60_000, timeout_s=60, what="not all is committed")
        assert fleet.stop("one") == 0
    assert came_out() == 60_000
    log = fleet.log("one")
    assert log.count("stopping: what is done is committed") == 2
    assert "exactly once" in log
    assert "Traceback" not in log


@contextlib.contextmanager
def at_work(*arguments: object, cwd: Path, log: Path) -> Iterator[subprocess.Popen]:
    """Have a worker, which is killed if the test has not ended it."""
    with log.open("ab") as output:
        worker = subprocess.Popen(
            [sys.executable, "-m", "engine.cli", "worker", *map(str, arguments)],
            cwd=cwd, env=environ(), stdout=output, stderr=output,
        )  # fmt: skip
    try:
        yield worker
    finally:
        if worker.poll() is None:
            worker.kill()
            worker.wait()


def ended(worker: subprocess.Popen) -> int:
    """Return how a worker ends that is asked to: by itself after ten seconds, but not with 0."""
    worker.send_signal(signal.SIGTERM)
    return worker.wait(30)


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


def test_a_worker_stops_while_its_broker_is_away(fresh_kafka: DevBroker, tmp_path: Path) -> None:
    """It says that it waits, and SIGTERM ends it in good order all the same."""
    with Fleet(tmp_path, fresh_kafka.bootstrap, {}) as fleet:
        fleet.start("one")
        wait_until(lambda: "is at work" in fleet.log("one"), timeout_s=60, what="it does not start")
        fresh_kafka.kill()
        wait_until(lambda: "Unable connect" in fleet.log("one"), timeout_s=20, what="nothing said")
        assert fleet.stop("one", timeout_s=30) == 0
    assert "Unclosed" not in fleet.log("one")
    assert "Traceback" not in fleet.log("one")


@pytest.mark.slow
def test_a_supervisor_starts_a_worker_again_that_was_killed(
    fresh_kafka: DevBroker, tmp_path: Path
) -> None:
    """Two processes share the input; one is killed, comes back, and nothing is missing."""
    work = Workload(events=6_000, users=50, seed=8)
    bootstrap, log = fresh_kafka.bootstrap, tmp_path / "log"

    async def load(records) -> None:
        await observer.produce(bootstrap, "raw-events", records, 2)

    asyncio.run(observer.create(bootstrap, {"raw-events": {"retention.ms": "-1"}}, 2))
    events = list(work.raw_events())

    def committed() -> int:
        found = asyncio.run(observer.committed(bootstrap, "clickstream", "raw-events", 2))
        return sum(at for at in found.values() if at > 0)

    def known() -> int:
        return log.read_text().count("worker of clickstream is at work")

    with at_work(
        "--replicas", 2, "--broker", bootstrap, "--state-dir", tmp_path / "state", cwd=ROOT, log=log
    ) as supervisor:
        asyncio.run(load(events[:3_000]))
        wait_until(lambda: committed() == 3_000, timeout_s=60, what="the first half is not done")
        wait_until(lambda: known() == 2, timeout_s=30, what="there are not two workers")
        victim = children(supervisor.pid)[0]
        os.kill(victim, signal.SIGKILL)
        asyncio.run(load(events[3_000:]))
        wait_until(lambda: known() == 3, timeout_s=30, what="the killed worker did not come back")
        mine = children(supervisor.pid)
        assert len(mine) == 2
        assert victim not in mine
        wait_until(lambda: committed() == 6_000, timeout_s=60, what="the second half is not done")
        assert ended(supervisor) == 0
        assert not [pid for pid in mine if Path(f"/proc/{pid}").exists()]
    text = log.read_text()
    assert "was killed by signal 9; it is started again in 0.5 s" in text
    assert text.count("replicas   2 processes") == text.count("guarantee ") == 1
    assert "Traceback" not in text


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
    sentence = error_of(done)
    assert "raw-events has 4, user-profiles has 2" in sentence
    assert "headrace topics create user-profiles --partitions 4" in sentence
    shared = headrace("worker", "--replicas", 2, "--broker", fresh_kafka.bootstrap,
                      "--state-dir", tmp_path)  # fmt: skip
    assert shared.returncode == 78
    assert shared.stderr.splitlines()[-1].startswith("Error: worker ")


APP = """
from engine import App

app = App("clockwork")
things = app.topic("things", key_type=str)
copies = app.topic("copies", key_type=str)
ticks = app.topic("ticks", key_type=str, value_type=dict)

@app.agent(things, sink=[copies])
async def copy(stream):
    async for thing in stream:
        yield thing

@app.timer(0.2)
async def tick():
    await ticks.send(key="clock", value={"tick": 1})
"""


def test_timers_fire_in_a_worker_and_two_workers_share_a_state_directory(
    kafka: DevBroker, tmp_path: Path
) -> None:
    """What a timer sends arrives; the second worker takes a place of its own beside the first."""
    (tmp_path / "clockwork.py").write_text(APP)
    (tmp_path / "things.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in range(40)))
    bootstrap = kafka.bootstrap
    options = ("clockwork", "--broker", bootstrap, "--state-dir", "state", "--partitions", 4)
    logs = [tmp_path / "one.log", tmp_path / "two.log"]

    def read(topic: str) -> list[dict]:
        return asyncio.run(observer.observe(bootstrap, [topic])).json(topic)

    with (
        at_work(*options, cwd=tmp_path, log=logs[0]) as one,
        at_work(*options, cwd=tmp_path, log=logs[1]) as two,
    ):
        for log in logs:
            wait_until(lambda log=log: "is at work" in log.read_text(), timeout_s=30, what=str(log))
        wait_until(lambda: len(read("ticks")) >= 5, timeout_s=30, what="the timers do not fire")
        done = headrace("ingest", tmp_path / "things.jsonl", "--topic", "things",
                        "--broker", bootstrap)  # fmt: skip
        assert done.returncode == 0, done.stderr
        wait_until(lambda: len(read("copies")) == 40, timeout_s=30, what="not all is copied")
        assert sorted(row["n"] for row in read("copies")) == list(range(40))
        slots = sorted(path.name for path in (tmp_path / "state" / "clockwork").iterdir())
        assert slots == ["worker-0", "worker-1"]
        assert ended(one) == 0
        assert ended(two) == 0
    assert read("ticks")[0] == {"tick": 1}
    for log in logs:
        assert "Traceback" not in log.read_text()


def test_the_readmes_agent_runs_on_kafka_as_the_readme_says(
    kafka: DevBroker, tmp_path: Path
) -> None:
    """Its worker makes the topics, its ingest fills one, and its totals come out."""
    block = (ROOT / "README.md").read_text().split("```python\n")[1].partition("```")[0]
    (tmp_path / "shop.py").write_text(block)
    orders = [("ann", 20.0), ("bob", 5.0), ("ann", -1.0), ("ann", 2.5)]
    (tmp_path / "orders.jsonl").write_text(
        "".join(
            json.dumps({"id": str(number), "customer": who, "amount": amount}) + "\n"
            for number, (who, amount) in enumerate(orders)
        )
    )
    broker = ("--broker", kafka.bootstrap)
    with at_work("shop", *broker, cwd=tmp_path, log=tmp_path / "log") as worker:
        wait_until(lambda: "is at work" in (tmp_path / "log").read_text(), timeout_s=30, what="up")
        done = headrace(
            "ingest", "orders.jsonl", "--topic", "orders", "--key-field", "customer", *broker,
            cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

        def totals() -> list[tuple[str, float]]:
            seen = asyncio.run(observer.observe(kafka.bootstrap, ["customer-totals"]))
            return [(row["customer"], row["total"]) for row in seen.json("customer-totals")]

        wait_until(lambda: len(totals()) == 3, timeout_s=30, what="three totals")
        assert sorted(totals()) == [("ann", 20.0), ("ann", 22.5), ("bob", 5.0)]
        letters = asyncio.run(observer.observe(kafka.bootstrap, ["orders-dlq"])).json("orders-dlq")
        assert [letter["id"] for letter in letters] == ["2"]
        began = time.monotonic()
        assert ended(worker) == 0
        assert time.monotonic() - began < 10
