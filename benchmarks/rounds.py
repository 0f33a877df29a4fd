"""One round: an engine drains its input, watched from outside; then what came out is checked."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from benchmarks import checks
from benchmarks.checks import Verdict
from benchmarks.cluster import Cluster, Growth
from benchmarks.engines import Engine, Launch
from benchmarks.inputs import Input, Inputs
from benchmarks.jobs import OUTPUTS
from benchmarks.process import Process

POLL_S = 0.05
QUIET_S = 2.0
"""So long without growth, with all results there, is the end."""
STALLED_S = 20.0
"""So long without growth is the end in any case, and the round may be short of results."""
START_S = 120.0
LONGEST_S = 300.0
"""A drain is cut off here; the round is short of results."""
NUDGE_S = 1.5
WARM = 0.2
"""The share of the output after which an engine counts as warm."""

_numbers = itertools.count(1)


class Look(msgspec.Struct, frozen=True):
    """How far the output has grown, and the CPU that the engine had used by then."""

    at: float
    size: int
    cpu_s: float


class Drained(msgspec.Struct, frozen=True):
    """A drain, from the moment that the engine had its partitions to its last output.

    It does not begin with the first output: while the first commit is on its way an engine reads,
    decodes and works ahead, and what it has in hand by then would come out as if for nothing
    (tried: it makes 300,000 events look twice as fast as 1,000,000).
    """

    looks: list[Look]
    """The start, and then every look that saw growth."""
    rss_mb: float
    wall_s: float

    def figures(self, events: int, after: float) -> tuple[float, float]:
        """Events per second, and CPU seconds per million of them.

        Args:
            events: what the whole drain took in.
            after: the share of the growth that is left out at the beginning; 0: nothing is.
        """
        start, end = self.looks[0], self.looks[-1]
        grown = end.size - start.size
        first = next(
            look for look in self.looks if look.size - start.size >= after * grown
        ) if after else start  # fmt: skip
        took = events * (end.size - first.size) / grown if grown else 0.0
        if not took or end.at <= first.at:
            first, took = start, float(events)
        seconds = max(end.at - first.at, 1e-9)
        return took / seconds, (end.cpu_s - first.cpu_s) / took * 1e6


class Round(msgspec.Struct):
    """What one round came to."""

    job: str
    engine: str
    guarantee: str
    store: str
    events: int
    expected: int
    came: int
    correct: bool
    notes: str
    events_per_second: float
    """Without the first fifth, where the engine is one to be warmed up."""
    cpu_seconds_per_million: float
    whole_events_per_second: float
    """Of the whole drain."""
    whole_cpu_seconds_per_million: float
    rss_mb: float
    drain_seconds: float
    wall_seconds: float
    load_average: float


class Bench:
    """The rounds of one run."""

    def __init__(
        self,
        cluster: Cluster,
        inputs: Inputs,
        home: Path,
        prepared: dict[str, str],
        progress: Callable[[str], None],
    ) -> None:
        self._cluster = cluster
        self._inputs = inputs
        self._home = home
        self._prepared = prepared
        self._progress = progress

    async def round(self, job: str, engine: Engine, share: float) -> Round:
        """Run one engine through one job, from nothing: new group, new state, new topics."""
        await self._cluster.delete_all_but(*self._inputs.topics)
        given = await self._inputs.of(engine, share)
        run = f"{engine.name}-{job}-{os.getpid()}-{next(_numbers)}"
        load_average = round(os.getloadavg()[0], 2)
        self._progress(f"  {run}, load {load_average}")
        drained = await self._play(job, engine, given, run)
        verdict = await checks.check(self._cluster, job, engine, given, run)
        return _round(job, engine, given, drained, verdict, load_average)

    async def _play(self, job: str, engine: Engine, given: Input, run: str) -> Drained:
        cluster = self._cluster
        await cluster.create(*OUTPUTS[job])
        state = self._home / run
        state.mkdir()
        launch = Launch(job, run, cluster.bootstrap, given.topic, state, cluster.partitions)
        command = engine.command(launch, self._prepared[engine.name])
        with Process(command.argv, command.environ, self._home / f"{run}.log") as process:
            async with Growth(cluster.bootstrap, self._inputs.topics | {given.topic}) as growth:
                await process.says(engine.ready)
                if engine.late:
                    if job in {"enrich", "main"}:
                        await self._table_full(process, f"{run}-profiles-changelog")
                    start = Look(time.perf_counter(), await growth.now(), process.cpu_s())
                    await self._inputs.write(given)
                else:
                    start = Look(time.perf_counter(), await growth.now(), process.cpu_s())
                return await self._drain(process, growth, start, job, given, run)

    async def _drain(
        self, process: Process, growth: Growth, start: Look, job: str, given: Input, run: str
    ) -> Drained:
        """Watch until everything is out; nudge what waits for one more event.

        Only what has read all of its input waits for that: in a pause of two seconds in the middle,
        as a busy machine makes them, a nudge would end the watch.
        """
        looks = [start]
        nudged_at = 0.0
        while True:
            size, now = await growth.now(), time.perf_counter()
            if size > looks[-1].size and not nudged_at:
                looks.append(Look(now, size, process.cpu_s()))
            quiet = now - looks[-1].at
            pause = quiet > QUIET_S and not await self._cluster.lag(run, given.topic)
            enough = pause and await self._all_out(job, given)
            stalled = quiet > (STALLED_S if len(looks) > 1 else START_S)
            if enough or stalled or process.ended or now - start.at > LONGEST_S:
                break
            if pause and now - nudged_at > NUDGE_S and len(looks) > 1:
                nudged_at = now
                await self._inputs.nudge(given, job)
            process.check()
            await asyncio.sleep(POLL_S)
        if len(looks) == 1:
            raise RuntimeError(f"nothing came out of {process.log.stem}: {process.tail()}")
        return Drained(looks, process.peak_rss_mb(), looks[-1].at - process.started)

    async def _all_out(self, job: str, given: Input) -> bool:
        """Whether as many results are there as must come."""
        came = sum([await self._cluster.size(topic) for topic in OUTPUTS[job]])
        return came >= given.expected.results(job) - checks.margin(job, self._cluster.partitions)

    async def _table_full(self, process: Process, changelog: str) -> None:
        """Wait until Faust has its profiles: it would join events without waiting for them."""
        profiles = self._inputs.work.profile_count
        while changelog not in await self._cluster.topics():
            process.check()
            await asyncio.sleep(0.2)
        topics = await self._cluster.topics() - {changelog}
        async with Growth(self._cluster.bootstrap, topics) as growth:
            while await growth.now() < profiles:
                process.check()
                await asyncio.sleep(0.1)


def _round(
    job: str, engine: Engine, given: Input, drained: Drained, verdict: Verdict, load: float
) -> Round:
    """Make a round of what was seen."""
    events = given.expected.events
    rate, cpu = drained.figures(events, WARM if engine.warmed else 0.0)
    whole_rate, whole_cpu = drained.figures(events, 0.0)
    return Round(
        job=job,
        engine=engine.name,
        guarantee=engine.guarantee,
        store=engine.store,
        events=events,
        expected=verdict.expected,
        came=verdict.came,
        correct=verdict.correct,
        notes=verdict.notes,
        events_per_second=rate,
        cpu_seconds_per_million=cpu,
        whole_events_per_second=whole_rate,
        whole_cpu_seconds_per_million=whole_cpu,
        rss_mb=drained.rss_mb,
        drain_seconds=drained.looks[-1].at - drained.looks[0].at,
        wall_seconds=drained.wall_s,
        load_average=load,
    )
