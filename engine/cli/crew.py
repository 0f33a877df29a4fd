"""The demo's workers: the engine in this process, or worker processes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import agents
from engine.cli.supervisor import Supervisor
from engine.cli.tally import sizes
from engine.cli.worker import worker_argv
from engine.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.app import App
    from engine.cli.plan import Place
    from engine.kafka.log import KafkaLog


class Crew(Protocol):
    """Whoever works."""

    exact: bool
    """Whether :meth:`emitted` is."""

    async def start(self) -> None:
        """Begin to work."""
        ...

    def check(self) -> None:
        """Raise what has ended the work, if anything has."""
        ...

    async def emitted(self, topics: tuple[str, ...]) -> list[int]:
        """Return how many records each topic has got so far."""
        ...

    async def stop(self) -> None:
        """End the work."""
        ...


class Inside:
    """The engine on this process's event loop."""

    exact = True

    def __init__(self, app: App) -> None:
        self._app = app

    async def start(self) -> None:
        """Join the group."""
        await self._app.start()
        self.check()

    def check(self) -> None:
        """Raise what crashed the app."""
        if self._app.crashed:
            reason = self._app.crash_reason
            assert reason is not None
            raise reason

    async def emitted(self, topics: tuple[str, ...]) -> list[int]:
        """Return what the engine's own counters say."""
        totals = self._app.engine.metrics.totals
        return [totals.get(f"out:{topic}", 0) for topic in topics]

    async def stop(self) -> None:
        """Commit and leave the group."""
        await self._app.stop()


class Outside:
    """Worker processes, supervised; their logs are files."""

    exact = False

    def __init__(
        self, app: App, place: Place, count: int, log: KafkaLog, say: Callable[[str], None]
    ) -> None:
        config = app.settings()
        self._log = log
        self._partitions = config.partitions
        given = {
            "broker": place.address,
            "guarantee": place.guarantee,
            "state_dir": place.state_dir,
            "partitions": config.partitions,
            "end_marks": True,
            "log_level": "warning",
        }
        self._supervisor = Supervisor(
            worker_argv("agents", given),
            count,
            clock=SystemClock(),
            directory=Path(agents.__file__).parents[1],  # there, both packages can be imported
            log_path=lambda number: place.home / f"worker-{number}.log",
            say=say,
        )

    async def start(self) -> None:
        """Start the processes; they join the group by themselves."""
        self.check()

    def check(self) -> None:
        """Start what has crashed again, or raise."""
        self._supervisor.tend()

    async def emitted(self, topics: tuple[str, ...]) -> list[int]:
        """Return how far the topics reach; transaction markers are counted with the records."""
        held = await sizes(self._log, topics, self._partitions)
        return [held[topic] for topic in topics]

    async def stop(self) -> None:
        """Stop the processes, which commits what they have done."""
        await asyncio.to_thread(self._supervisor.stop)
