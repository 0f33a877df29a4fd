"""A worker inside the test's own process: an app's engine on a real broker."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from engine import App
from engine.errors import BrokerError
from engine.kafka.edges import _claimed
from engine.loop import Engine
from engine.record import TP

PATIENCE_S = 60.0


def now_ms() -> int:
    """Return the time: retention deletes records with old timestamps, from 30 s on."""
    return time.time_ns() // 1_000_000


async def until(condition: Callable[[], Any], what: str) -> None:
    """Wait for a condition."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"after {PATIENCE_S:g} s: {what}") from None


class Inside:
    """The worker and its work."""

    def __init__(self, engine: Engine, work: asyncio.Task[None]) -> None:
        self.engine = engine
        self.work = work

    async def until(self, condition: Callable[[], Any], what: str) -> None:
        """Wait for a condition while the worker works."""
        try:
            await until(lambda: self.work.done() or condition(), what)
        except AssertionError as error:
            raise AssertionError(f"{error}; the worker: {self.engine.unready()!r}") from None
        if self.work.done() and not condition():
            await self.work

    async def until_committed(self, **topics: int) -> None:
        """Wait until partition 0 of each of these topics is committed up to an offset."""
        positions: dict[TP, Any] = {}
        tps = {TP(name.replace("_", "-"), 0): offset for name, offset in topics.items()}

        async def look() -> None:
            while not self.work.done():
                with contextlib.suppress(BrokerError):  # it is asked again
                    positions.update(await self.engine.edges.source.positions(list(tps)))
                await asyncio.sleep(0.1)

        await self.until(self.engine.ready.is_set, "the worker has no tasks")
        looking = asyncio.create_task(look())
        try:
            await self.until(
                lambda: all(
                    positions.get(tp) and positions[tp].offset >= at for tp, at in tps.items()
                ),
                f"not committed: {tps}",
            )
        finally:
            looking.cancel()

    def parked(self) -> list[str]:
        """Return why tasks stand still."""
        if not self.engine.ready.is_set():
            return []
        return [str(parked.error) for parked in self.engine.assignment.parking.parked.values()]


@asynccontextmanager
async def worker(app: App, bootstrap: str, home: Path, **settings: Any) -> AsyncIterator[Inside]:
    """Run an app's worker as long as the block; the directory keeps its stores."""
    app.configure(broker=bootstrap, state_dir=home, session_timeout_ms=3000, **settings)
    engine = app.engine
    work = asyncio.create_task(engine.run())
    inside = Inside(engine, work)
    try:
        yield inside
    finally:
        engine.stop()
        await asyncio.wait([work])
        while _claimed:  # the next worker of this process takes the same state directory
            _claimed.pop().close()
        if not work.cancelled():
            work.exception()
