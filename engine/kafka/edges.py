"""Put the Kafka edges of one worker together."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import uuid
from typing import IO, TYPE_CHECKING

from engine.clock import SystemClock
from engine.edges import Edges
from engine.errors import ConfigError
from engine.kafka.admin import KafkaAdmin
from engine.kafka.assignor import Group, assignor_for
from engine.kafka.consumer import KafkaSource
from engine.kafka.log import KafkaLog
from engine.kafka.pertask import TaskOutlets
from engine.kafka.plain import PlainOutlet
from engine.kafka.producer import KafkaOutlet, transactional_id
from tables.errors import StoreCorrupted
from tables.identity import identity
from tables.store import Memory, RocksStore, wipe

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from engine.clock import Clock
    from engine.config import Config
    from engine.edges import Outlet
    from engine.kafka.assignor import TaskId
    from engine.topology import SubTopology
    from tables.store import Store


def kafka_edges(config: Config, parts: Sequence[SubTopology]) -> Edges:
    """Return the edges of a worker that may have tasks of any of ``parts``."""
    home = claim_home(config)
    clock = SystemClock()
    assignor = assignor_for(
        (Group(tuple(t.name for t in part.inputs), stateful=bool(part.tables)) for part in parts),
        replicas=config.standby_replicas,
        rack=config.rack,
        kept=kept_in(home, parts),
    )
    instance = instance_of(config, home)
    source = KafkaSource(config, assignor, instance)
    outlet = _outlet(config, source, instance, clock)
    memory = Memory(cache_bytes=config.cache_bytes, write_buffer_bytes=config.write_buffer_bytes)

    def open_store(task: str, families: Collection[str]) -> Store:
        owner = identity(config.id, task)
        try:
            return RocksStore(home / task, families, memory, owner)
        except StoreCorrupted as error:
            log.warning("%s", error)
            wipe(home / task)
            return RocksStore(home / task, families, memory, owner)

    return Edges(
        clock=clock,
        source=source,
        outlet=outlet,
        log=KafkaLog(config),
        admin=KafkaAdmin(config),
        open_store=open_store,
    )


def _outlet(config: Config, source: KafkaSource, instance: str, clock: Clock) -> Outlet:
    if config.guarantee != "exactly_once":
        return PlainOutlet(config, source.commit_plain, clock)
    if config.producers == "task":
        return TaskOutlets(config, clock)
    return KafkaOutlet(config, transactional_id(config, instance), clock)


def kept_in(home: Path, parts: Sequence[SubTopology]) -> list[TaskId]:
    """Return the tasks of which a store is in a worker's state directory."""
    numbers = {part.name: number for number, part in enumerate(parts)}
    found = (path.name.rpartition("_") for path in home.iterdir() if path.is_dir())
    return [(numbers[name], int(n)) for name, _, n in found if name in numbers and n.isdecimal()]


log = logging.getLogger(__name__)

_claimed: list[IO[str]] = []
"""Open lock files: a lock is held until the process ends."""

HOMES_MAX = 256


def claim_home(config: Config) -> Path:
    """Return a state directory that is this worker's alone: the first one nobody has locked.

    So any number of workers can be started with the same command on the same machine, and one that
    is started again finds the state of one that is gone.
    """
    os.umask(0o077)  # of the process: RocksDB's threads make files at any time
    _own(config.state_dir, root_too=True)  # a volume, say; its mode is not ours to change
    _own(config.state_dir / config.id)
    for number in range(HOMES_MAX):
        home = config.state_dir / config.id / f"worker-{number}"
        _own(home)
        lock = (home / "lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            continue
        _claimed.append(lock)
        return home
    raise ConfigError(f"{HOMES_MAX} workers use {config.state_dir} already; give --state-dir")


def _own(place: Path, *, root_too: bool = False) -> None:
    """Make a directory that only we can look into, or see that it is one of ours.

    Args:
        root_too: it may be root's, and open to others: what we keep is further inside.

    Raises:
        ConfigError: it is somebody else's, who could read the state or put another in its place.
    """
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        stat = place.stat()
    except OSError as error:
        raise ConfigError(f"state directory {place}: {error.strerror}") from error
    if root_too and stat.st_uid == 0:
        return
    if stat.st_uid != os.geteuid():
        raise ConfigError(
            f"state directory {place} belongs to user {stat.st_uid}, and this is user "
            f"{os.geteuid()}: run as its owner, or give another one with --state-dir"
        )
    if stat.st_mode & 0o077 and not root_too:
        place.chmod(0o700)


def instance_of(config: Config, home: Path) -> str:
    """Return this worker's stable name: the configured one, else one kept beside its state.

    With it the transactional id and the place in the group outlive a crash: a worker that comes
    back on the same directory ends at once what it left open and has its tasks again, instead of
    everybody waiting for the timeout.
    """
    if config.instance:
        return config.instance
    path = home / "instance"
    if path.exists():
        name = path.read_text().strip()
        if re.fullmatch(r"[0-9a-f]{12}", name):
            return name
    name = uuid.uuid4().hex[:12]
    path.write_text(name)
    return name
