"""Brokers with a door for each worker, so that one of them can be cut off and the others not."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from aiokafka.admin import AIOKafkaAdminClient

from engine.devbroker import DevBroker, start_kafka
from tests.faults.proxy import HOST, Proxy

WORKERS = ("one", "two", "three", "four")
TRIO_HEAP_MB = 384


class Site:
    """Where trials take place: a cluster, and the workers' doors to it.

    Attributes:
        brokers: its nodes; the doors lead to the first.
        bootstrap: for the test's own clients, past the doors.
    """

    def __init__(self, brokers: list[DevBroker], doors: Mapping[str, Proxy]) -> None:
        self.brokers = brokers
        self.doors = doors
        self.bootstrap = ",".join(broker.bootstrap for broker in brokers)

    @property
    def broker(self) -> DevBroker:
        """The first node."""
        return self.brokers[0]

    def address(self, worker: str) -> str:
        """Return where a worker finds the cluster."""
        door = self.doors.get(worker)
        return f"{HOST}:{door.port}" if door is not None else self.bootstrap

    def clear(self) -> None:
        """Delete all topics, and with them what groups have committed; mend the doors."""
        for door in self.doors.values():
            door.heal()
        asyncio.run(_delete_topics(self.bootstrap))


def free_port() -> int:
    """Return a port that nobody has."""
    with socket.create_server((HOST, 0)) as probe:
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def single(home: Path, overrides: Mapping[str, str] = MappingProxyType({})) -> Iterator[Site]:
    """Start one node with a door for each worker."""
    with contextlib.ExitStack() as stack:
        behind = {name: free_port() for name in WORKERS}
        doors = {name: stack.enter_context(Proxy(port)) for name, port in behind.items()}
        listeners = {name.upper(): (behind[name], doors[name].port) for name in WORKERS}
        broker = start_kafka(home, overrides=overrides, doors=listeners)
        stack.callback(broker.stop)
        yield Site([broker], doors)


@contextlib.contextmanager
def trio(home: Path) -> Iterator[Site]:
    """Start three nodes; every topic of Kafka's own has three replicas, two of them in sync."""
    ports = [(free_port(), free_port()) for _ in range(3)]
    voters = ",".join(f"{n}@{HOST}:{quorum}" for n, (_, quorum) in enumerate(ports, 1))
    started: dict[int, DevBroker] = {}
    failed: list[BaseException] = []

    def start(number: int, port: int, quorum: int) -> None:
        overrides = {
            "node.id": str(number),
            "listeners": f"BROKER://{HOST}:{port},CONTROLLER://{HOST}:{quorum}",
            "controller.quorum.voters": voters,
            "offsets.topic.replication.factor": "3",
            "transaction.state.log.replication.factor": "3",
            "transaction.state.log.min.isr": "2",
            "default.replication.factor": "3",
            "min.insync.replicas": "2",
        }
        try:
            started[number] = start_kafka(
                home / f"node-{number}", overrides=overrides, port=port, heap_mb=TRIO_HEAP_MB
            )
        except BaseException as error:  # noqa: BLE001  raised below, by who waits for all three
            failed.append(error)

    # a node answers only when two of them have agreed on a controller
    starting = [
        threading.Thread(target=start, args=(number, *two)) for number, two in enumerate(ports, 1)
    ]
    try:
        for thread in starting:
            thread.start()
        for thread in starting:
            thread.join()
        if failed:
            raise failed[0]
        yield Site([started[number] for number in sorted(started)], {})
    finally:
        for broker in started.values():
            broker.stop()


async def _delete_topics(bootstrap: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        ends = time.monotonic() + 30
        while names := [name for name in await admin.list_topics() if not name.startswith("__")]:
            assert time.monotonic() < ends, f"topics stay: {names}"
            await admin.delete_topics(names)
            await asyncio.sleep(0.2)
    finally:
        await admin.close()
