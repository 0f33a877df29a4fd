"""The engines: how each is started, what it promises, and how much input it gets."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from benchmarks import maven
from benchmarks.jobs import JOBS
from benchmarks.maven import Unavailable
from benchmarks.venvs import python_with

QUIX = ("quixstreams==3.28.1",)
BYTEWAX = ("bytewax[kafka]==0.21.1",)
CONFLUENT = ("confluent-kafka==2.11.1", "msgspec>=0.20")
PEERS = Path(__file__).parent / "peers"

Progress = Callable[[str], None]


class Launch(msgspec.Struct, frozen=True):
    """What a round tells an engine."""

    job: str
    run: str
    """Names the consumer group, and all that the engine makes."""
    broker: str
    topic: str
    state: Path
    partitions: int


class Command(msgspec.Struct, frozen=True):
    """What to start."""

    argv: list[str]
    environ: dict[str, str]


class Engine(msgspec.Struct, frozen=True):
    """One row of the table.

    Attributes:
        ready: what its log says once it has its partitions.
        prepare: returns what ``command`` needs: a class path, an interpreter.
        jobs: what it is measured on.
        share: of the input's size, for those that would take too long; 1 is the whole.
        quick_share: the same, for ``--quick``.
        warmed: its figures leave the first fifth of the output out: the JVM compiles
            in it, and Quix does not say when it has its partitions.
        late: the input is written once it is up (it does not wait for its table to be full).
    """

    name: str
    guarantee: str
    ready: str
    command: Callable[[Launch, str], Command]
    prepare: Callable[[Progress], str] = lambda _: sys.executable
    jobs: tuple[str, ...] = JOBS
    store: str = "rocksdb"
    share: float = 1.0
    quick_share: float = 1.0
    warmed: bool = False
    late: bool = False


def environ_of(launch: Launch) -> dict[str, str]:
    """What a peer in Python is told."""
    return {
        "BENCH_BROKER": launch.broker,
        "BENCH_ID": launch.run,
        "BENCH_INPUT": launch.topic,
        "BENCH_JOB": launch.job,
        "BENCH_PARTITIONS": str(launch.partitions),
        "BENCH_STATE": str(launch.state),
    }


def headrace(launch: Launch, python: str) -> Command:
    """The main job's agents, with the default settings."""
    environ = {
        "HEADRACE_BROKER": launch.broker,
        "HEADRACE_STATE_DIR": str(launch.state),
        "HEADRACE_PARTITIONS": str(launch.partitions),
        "HEADRACE_RETENTION_MS": "-1",
    }
    return Command([python, "-m", "benchmarks.headrace_worker", launch.job, launch.run], environ)


def faust(launch: Launch, python: str) -> Command:
    """Faust's own command; at log level warn its spinner would make it slower."""
    module = f"benchmarks.peers.faust_{launch.job}"
    argv = [python, "-m", "faust", "-A", module, "worker", "--without-web", "-l", "info"]
    return Command(argv, environ_of(launch))


def script(launch: Launch, python: str, name: str) -> Command:
    """A peer that is one file."""
    return Command([python, str(PEERS / f"{name}.py")], environ_of(launch))


STREAMS = {
    "num.stream.threads": "1",
    "replication.factor": "1",
    "auto.offset.reset": "earliest",
}
TUNED = {
    "tuned": "yes",
    "statestore.cache.max.bytes": str(256 << 20),
    "commit.interval.ms": "500",
    "buffered.records.per.partition": "10000",
    "max.poll.records": "10000",
    "producer.linger.ms": "20",
    "producer.batch.size": str(256 << 10),
    "producer.compression.type": "lz4",
}


def streams(launch: Launch, classpath: str, extra: dict[str, str]) -> Command:
    """One Kafka Streams instance, with its settings in a file."""
    settings = {
        **STREAMS,
        "application.id": launch.run,
        "bootstrap.servers": launch.broker,
        "state.dir": str(launch.state),
        **extra,
    }
    path = launch.state / "streams.properties"
    path.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    java = shutil.which("java") or "java"
    return Command([java, "-cp", classpath, "bench.Main", launch.job, launch.topic, str(path)], {})


def streams_row(name: str, guarantee: str, **extra: str) -> Engine:
    """A row of Kafka Streams with these settings beyond its defaults."""
    settings = {"processing.guarantee": guarantee, **(TUNED if extra.get("tuned") else {})}
    return Engine(
        name,
        "exactly_once" if guarantee == "exactly_once_v2" else "at_least_once",
        "READY",
        lambda launch, classpath: streams(launch, classpath, settings),
        maven.classpath,
        quick_share=0.5,
        warmed=True,
    )


ENGINES = {
    each.name: each
    for each in (
        Engine("headrace", "exactly_once", "new tasks", headrace),
        streams_row("kafka-streams-eos", "exactly_once_v2"),
        streams_row("kafka-streams-eos-tuned", "exactly_once_v2", tuned="yes"),
        streams_row("kafka-streams-alos", "at_least_once"),
        Engine(
            "quix",
            "exactly_once",
            "now processing incoming messages",
            lambda launch, python: script(launch, python, "quix"),
            lambda say: python_with("quix", QUIX, say),
            share=0.3,
            warmed=True,
            jobs=("passthrough", "enrich", "tumbling"),
        ),
        Engine(
            "bytewax",
            "none",
            "READY",
            lambda launch, python: script(launch, python, "bytewax_flow"),
            lambda say: python_with("bytewax", BYTEWAX, say),
            store="memory",
            share=0.3,
            warmed=True,
            jobs=("passthrough", "sessions"),
        ),
        Engine(
            "faust",
            "at_least_once",
            "Ready",
            faust,
            jobs=("passthrough", "enrich", "sessions", "tumbling"),
            share=0.03,
            quick_share=0.04,
            late=True,
        ),
        Engine(
            "aiokafka",
            "none",
            "READY",
            lambda launch, python: script(launch, python, "aiokafka_floor"),
            jobs=("passthrough",),
            store="none",
        ),
        Engine(
            "aiokafka-msgspec",
            "none",
            "READY",
            lambda launch, python: script(launch, python, "aiokafka_msgspec_floor"),
            jobs=("passthrough",),
            store="none",
        ),
        Engine(
            "confluent-kafka",
            "none",
            "READY",
            lambda launch, python: script(launch, python, "confluent_floor"),
            lambda say: python_with("confluent", CONFLUENT, say),
            jobs=("passthrough",),
            store="none",
        ),
    )
}
QUICK = ("headrace", "kafka-streams-eos", "faust")

__all__ = ["ENGINES", "QUICK", "Command", "Engine", "Launch", "Unavailable"]
