"""A worker dies at each named crash point (:mod:`engine.crashpoint`), and all must still add up.

One trial a point, each with topics of its own: a worker is at work; a second one, armed, joins on
an empty directory and takes over half of the partitions; it dies at its point and comes back; the
input is worked off, both are stopped, everything is checked.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from engine import crashpoint
from engine.torture import audit, observer
from engine.torture.checker import Job
from engine.torture.fleet import Fleet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from engine.clock import Clock
    from engine.torture.campaign import Keyed
    from engine.torture.verdict import Verdict

PARTITIONS = 4
AT_ONCE = 3
"""Trials wait most of the time: for processes to start, for a session to run out."""
LOOK_S = 0.25
PATIENCE_S = 45.0
TRICKLE, TRICKLE_S = 50, 0.06
PASSES = {"revoke": 2}
"""How often a point is passed before it means something: a worker that joins gives nothing up."""
SETTINGS: dict[str, str | int | bool] = {
    "partitions": PARTITIONS,
    "retention_ms": -1,
    "session_timeout_ms": 2_000,
    "inbox_records": 200,
    "keep_unmatched": True,
}


class Crash(NamedTuple):
    """What came of one trial.

    Attributes:
        exit_code: of the worker that was to die; None: it did not.
        last_words: the line in which it named the point.
    """

    point: str
    exit_code: int | None
    last_words: str
    verdict: Verdict


class Input(NamedTuple):
    """What every trial works on."""

    profiles: Sequence[Keyed]
    events: Sequence[Keyed]


async def crash_everywhere(
    bootstrap: str, home: Path, given: Input, clock: Clock, points: Iterable[str] = ()
) -> list[Crash]:
    """Try each point (or those that are named) on one broker.

    Raises:
        TimeoutError: a trial did not come to its end; its workers' logs are in ``home``.
    """
    gate = asyncio.Semaphore(AT_ONCE)
    prefix = f"crash-{clock.now_ms():x}"

    async def run(point: str) -> Crash:
        async with gate:
            job = Job(f"{prefix}-{point}-", keep_unmatched=True)
            return await _Trial(point, job, bootstrap, home / point, given, clock).run()

    async with asyncio.TaskGroup() as group:
        trials = [group.create_task(run(point)) for point in points or crashpoint.POINTS]
    return [trial.result() for trial in trials]


def _parts(events: Sequence[Keyed]) -> list[Sequence[Keyed]]:
    """Cut the input into what comes before, around and after the death."""
    before, after = len(events) * 4 // 10, len(events) * 8 // 10
    return [events[:before], events[before:after], events[after:]]


class _Trial:
    def __init__(
        self, point: str, job: Job, bootstrap: str, home: Path, given: Input, clock: Clock
    ) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self._point = point
        self._job = job
        self._bootstrap = bootstrap
        self._input = given
        settings = SETTINGS | {"prefix": job.prefix, "broker": bootstrap}
        settings["standby_replicas"] = int(point == "promote")
        self._fleet = Fleet(home, job.app, settings, clock)

    async def run(self) -> Crash:
        try:
            return await self._run()
        finally:
            await asyncio.to_thread(self._fleet.kill_all)

    async def _run(self) -> Crash:
        job, events, fleet = self._job, self._input.events, self._fleet
        keep = {"retention.ms": "-1"}
        await observer.create(
            self._bootstrap,
            {job.topic("raw-events"): keep, job.topic("user-profiles"): keep},
            PARTITIONS,
        )
        await self._send("user-profiles", self._input.profiles)
        first, second, last = _parts(events)
        await self._send("raw-events", first)
        other = fleet.add()
        await self._until_done(len(first) // 2)
        armed = fleet.add(crash_at=f"{self._point}:{PASSES.get(self._point, 1)}")
        child = armed.child
        assert child is not None
        await self._until(lambda: fleet.at_work(armed) or child.exit_code is not None)
        await self._trickle(second)
        if self._point == "revoke":
            fleet.add()  # a rebalance
        elif self._point == "shutdown":
            child.ask_to_stop()
        elif self._point == "promote":
            await self._until(lambda: b"new standbys" in fleet.log_of(armed))
            fleet.kill(other)
        await asyncio.to_thread(child.wait, PATIENCE_S)
        code = child.exit_code
        if code is None:
            fleet.kill(armed)
        log = fleet.log_of(armed).decode(errors="replace").splitlines()
        said = [line for line in log if line.startswith("crash point")]
        fleet.start(armed)
        if other.child is None:
            fleet.start(other)
        await self._until(lambda: fleet.at_work(armed) and fleet.at_work(other))
        await self._send("raw-events", last)  # each task must be restored to go on with it
        await self._until_done(len(events))
        wrong = await asyncio.to_thread(fleet.stop_all)
        verdict = await audit.audit(self._bootstrap, job, fleet.homes)
        verdict.add("I8", "workers that did not stop in good order", wrong)
        return Crash(self._point, code, said[-1] if said else "", verdict)

    async def _trickle(self, events: Sequence[Keyed]) -> None:
        """Send events little by little, so that many commits carry a few of every task's."""
        topic = self._job.topic("raw-events")
        async with observer.feeding(self._bootstrap, topic, PARTITIONS) as feed:
            for at in range(0, len(events), TRICKLE):
                await feed.send(events[at : at + TRICKLE])
                await asyncio.sleep(TRICKLE_S)

    async def _send(self, topic: str, records: Sequence[Keyed]) -> None:
        await observer.produce(self._bootstrap, self._job.topic(topic), records, PARTITIONS)

    async def _until_done(self, count: int) -> None:
        topic = self._job.topic("raw-events")
        async with asyncio.timeout(PATIENCE_S):
            while True:
                at = await observer.committed(self._bootstrap, self._job.app, topic, PARTITIONS)
                if sum(max(0, offset) for offset in at.values()) >= count:
                    return
                await asyncio.sleep(LOOK_S)

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                await asyncio.sleep(LOOK_S)
