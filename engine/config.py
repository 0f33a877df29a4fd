"""All settings: one frozen struct, read once at the edge, checked by one table of bounds.

The only file that reads the environment. ``HEADRACE_<NAME>`` sets what the code leaves unsaid.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from engine import memory
from engine.errors import ConfigError
from engine.security import Security, decode_field, make_security

Guarantee = Literal["exactly_once", "at_least_once"]
Producers = Literal["worker", "task"]
OnLostInput = Literal["stop", "continue"]
Compression = Literal["none", "gzip", "snappy", "lz4", "zstd"]
Options = TypeVar("Options", bound=msgspec.Struct)


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """How an app runs.

    Attributes:
        id: names the consumer group, the changelogs and the transactional ids.
        broker: bootstrap servers, ``host:port[,host:port]``.
        guarantee: ``exactly_once`` needs a broker with transactions (Apache Kafka has them).
        commit_interval_ms: time between commits, which is about the latency of results.
        commit_interval_max_ms: where ``adaptive``, a worker that is behind its input lets so much
            pass between commits, at most.
        adaptive: adapt commit interval, rounds and fetch size to the load (:mod:`engine.tuning`);
            else they are what is set.
        transaction_timeout_ms: after it the broker aborts the open transaction of a dead worker.
        session_timeout_ms: without a heartbeat for so long, a worker's tasks go to the others.
        on_lost_input: when records went (retention) before they were read: ``stop`` their task, or
            ``continue`` with what is there.
        state_dir: where the stores are; each worker of a machine needs its own.
        instance: a stable name of this worker, which no other one has (``group.instance.id``); the
            default is one kept in ``state_dir``. A worker that was given one does not leave the
            group when it stops: its tasks wait for it, for ``session_timeout_ms``.
        producers: transactions are the ``worker``'s, all its tasks in one, or each ``task``'s.
        standby_replicas: so many other workers keep a warm copy of each task's tables.
        rack: where this worker runs: the copies of a task are spread over racks.
        partitions, replicas, retention_ms, segment_ms, min_insync: for topics that are created.
        compression: of everything that is produced.
        fetch_bytes: at most so much is asked for a partition at a time.
        inbox_records: a partition with so many records waiting is not polled.
        outbox_records: so many records waiting make a commit due.
        memory_limit: what the whole worker process may take (``"2GiB"``); it is divided among the
            four settings that follow (:mod:`engine.memory`), which are then not to be given. The
            default is the control group's limit where that is small, else none.
        memory_bytes: what a worker's inboxes, outboxes and decoded table entries may hold, about:
            it polls and hands out less when they hold more. RocksDB's memory comes on top.
        fetch_memory: what may be asked for at a time over all partitions of a worker.
        cache_bytes, write_buffer_bytes: RocksDB's memory, shared by all tasks.
        end_marks: heed end-of-input marks (bounded runs; any producer could send one).
        window_headers: say a window's bounds in a header of its results.
        future_limit_ms: an event that is further ahead, of the clock or of its record's timestamp,
            becomes a dead letter and does not move stream time (:mod:`engine.future`); 0: none is.
        stall_ms: an event loop that stands still for so long is reported, with its stack; 0: never.
        collect_after: objects that Python's cycle collector lets be made before it looks at them;
            its default of 700 looks at every batch again and again. 0 leaves the collector alone.
        security: how connections are protected; see :class:`engine.security.Security`.
    """

    id: str
    broker: str = "127.0.0.1:9092"
    guarantee: Guarantee = "exactly_once"
    commit_interval_ms: int = 100
    commit_interval_max_ms: int = 1_000
    adaptive: bool = True
    transaction_timeout_ms: int = 10_000
    session_timeout_ms: int = 10_000
    on_lost_input: OnLostInput = "stop"
    state_dir: Path = Path(".headrace")
    instance: str = ""
    producers: Producers = "worker"
    standby_replicas: int = 0
    rack: str = ""
    partitions: int = 12
    replicas: int = 3
    retention_ms: int = 7 * 86_400_000
    segment_ms: int = 86_400_000
    min_insync: int = 2
    compression: Compression = "zstd"
    fetch_bytes: int = 384 << 10
    inbox_records: int = 5_000
    outbox_records: int = 50_000
    memory_limit: int = 0
    memory_bytes: int = 1 << 30
    fetch_memory: int = 256 << 20
    cache_bytes: int = 64 << 20
    write_buffer_bytes: int = 64 << 20
    end_marks: bool = False
    window_headers: bool = False
    future_limit_ms: int = 86_400_000
    stall_ms: int = 1_000
    collect_after: int = 200_000
    security: Security = Security()


_BOUNDS: tuple[tuple[str, int, int, str], ...] = (
    ("commit_interval_ms", 1, 60_000, "ms"),
    ("commit_interval_max_ms", 1, 60_000, "ms"),
    ("transaction_timeout_ms", 1_000, 900_000, "ms"),
    ("session_timeout_ms", 1_000, 1_800_000, "ms"),
    ("standby_replicas", 0, 10, "copies"),
    ("partitions", 1, 100_000, "partitions"),
    ("replicas", 1, 100, "replicas"),
    ("min_insync", 1, 100, "replicas"),
    ("retention_ms", -1, 1 << 62, "ms"),
    ("segment_ms", 1_000, 1 << 62, "ms"),
    ("fetch_bytes", 1_024, 1 << 30, "bytes"),
    ("inbox_records", 1, 10_000_000, "records"),
    ("outbox_records", 1, 10_000_000, "records"),
    ("memory_limit", 0, 1 << 44, "bytes"),
    ("fetch_memory", 1 << 20, 1 << 40, "bytes"),
    ("memory_bytes", 16 << 20, 1 << 44, "bytes"),
    ("cache_bytes", 1 << 20, 1 << 40, "bytes"),
    ("write_buffer_bytes", 1 << 20, 1 << 40, "bytes"),
    ("future_limit_ms", 0, 1 << 62, "ms"),
    ("stall_ms", 0, 600_000, "ms"),
    ("collect_after", 0, 10_000_000, "objects"),
)

_OF_LIMIT = ("memory_bytes", "fetch_memory", "cache_bytes", "write_buffer_bytes")

_ORDERED: tuple[tuple[str, str], ...] = (
    ("commit_interval_ms", "transaction_timeout_ms"),
    ("commit_interval_max_ms", "transaction_timeout_ms"),
    ("min_insync", "replicas"),
)

_SECURITY = tuple(set(Security.__struct_fields__) - {"sasl_oauth_token_provider"})

_ID = re.compile(r"[a-zA-Z0-9._-]{1,100}")


def validate(config: Config) -> Config:
    """Return ``config``, or say which setting is out of which bound.

    Raises:
        ConfigError: with the setting's name, its value, the bound and the unit.
    """
    if not _ID.fullmatch(config.id):
        raise ConfigError(
            f"app id {config.id!r}: use 1 to 100 of letters, digits, '.', '_' and '-' "
            "(it names the consumer group and topics)"
        )
    if config.instance and not _ID.fullmatch(config.instance):
        raise ConfigError(
            f"instance {config.instance!r}: use 1 to 100 of letters, digits, '.', '_' and '-'"
        )
    if "@" in config.broker:
        raise ConfigError(
            "the broker's address has an @ in it: credentials do not go there, but into "
            "HEADRACE_SASL_USERNAME and HEADRACE_SASL_PASSWORD_FILE"
        )
    if not re.fullmatch(r"[^\s,:/]+:\d+(,[^\s,:/]+:\d+)*", config.broker):
        raise ConfigError(f"broker {config.broker!r}: write it as host:port[,host:port]")
    for name, low, high, unit in _BOUNDS:
        value = getattr(config, name)
        if not low <= value <= high:
            raise ConfigError(f"{name} {value} {unit} is outside of {low} to {high} {unit}")
    for less, more in _ORDERED:
        low, high = getattr(config, less), getattr(config, more)
        if low > high:
            raise ConfigError(f"{less} {low} is more than {more} {high}")
    return config


def make(settings: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> Config:
    """Return the config for ``settings``, filled up from ``HEADRACE_<NAME>`` variables.

    Raises:
        ConfigError: an unknown setting, a value of the wrong type, or one out of bounds.
    """
    known = {field.name for field in msgspec.structs.fields(Config)} - {"security"}
    settings = dict(settings)
    security = make_security(settings.pop("security", None), _from_environ(_SECURITY, environ))
    unknown = set(settings) - known
    if unknown:
        raise ConfigError(f"unknown settings: {', '.join(sorted(unknown))}")
    values: dict[str, Any] = {**_from_environ(known, environ), **settings}
    if "state_dir" in values:
        values["state_dir"] = str(values["state_dir"])
    if "memory_limit" in values:
        values["memory_limit"] = memory.size(values["memory_limit"], "memory_limit")
        given = sorted(values.keys() & set(_OF_LIMIT)) if values["memory_limit"] else []
        if given:
            raise ConfigError(f"memory_limit divides the memory: leave out {', '.join(given)}")
    try:
        config = msgspec.convert(values, Config, strict=False, dec_hook=decode_field)
    except msgspec.ValidationError as error:
        raise ConfigError(str(error)) from error
    config = msgspec.structs.replace(config, security=security)
    if "min_insync" not in values:  # the default is for the default number of replicas
        config = msgspec.structs.replace(
            config, min_insync=min(config.min_insync, max(1, config.replicas))
        )
    return validate(config)


def read_options(kind: type[Options], environ: Mapping[str, str] | None = None) -> Options:
    """Return an app's own options: each field from ``HEADRACE_<NAME>``, else its default.

    Raises:
        ConfigError: a value of the wrong type.
    """
    names = {field.name for field in msgspec.structs.fields(kind)}
    try:
        return msgspec.convert(_from_environ(names, environ), kind, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"the environment's HEADRACE_ options: {error}") from error


def _from_environ(names: Iterable[str], environ: Mapping[str, str] | None) -> dict[str, str]:
    environ = os.environ if environ is None else environ
    variables = {name: f"HEADRACE_{name.upper()}" for name in names}
    return {name: environ[var] for name, var in variables.items() if var in environ}


def export(**values: str | float | bool) -> None:
    """Put settings and options into the environment, for child processes and later imports."""
    os.environ.update(_variables(values))


def environ(**values: str | float | bool) -> dict[str, str]:
    """Return the environment of a child process that is to have these settings."""
    return {**os.environ, **_variables(values)}


def _variables(values: Mapping[str, str | float | bool]) -> dict[str, str]:
    return {
        f"HEADRACE_{name.upper()}": str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in values.items()
    }


def connect_plainly() -> None:
    """Forget the environment's security settings: for a broker of our own, on loopback."""
    for name in _SECURITY:
        os.environ.pop(f"HEADRACE_{name.upper()}", None)


def cache_dir() -> Path | None:
    """Return where downloads are kept (``HEADRACE_CACHE``), or None for the default."""
    value = os.environ.get("HEADRACE_CACHE")
    return Path(value) if value else None


def crash_at() -> str:
    """Return the place to crash at (``HEADRACE_CRASH_AT``); see engine/crashpoint.py."""
    return os.environ.get("HEADRACE_CRASH_AT", "")


def logs_values() -> bool:
    """Say whether the texts of agents' exceptions go to the log (``HEADRACE_LOG_VALUES=true``).

    They may quote the event: ``KeyError: 'ann@example.com'``.
    """
    return os.environ.get("HEADRACE_LOG_VALUES") == "true"


def in_ci() -> bool:
    """Say whether this is a continuous-integration run, where nothing may be skipped."""
    return os.environ.get("CI") == "true"
