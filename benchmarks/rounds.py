"""One round: an engine drains its input, watched from outside; then what came out is checked."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from agents.workload import Record, Workload
from benchmarks.cluster import PARTITIONS, Cluster, Watermark
from benchmarks.process import Process

POLL_S = 0.05
QUIET_S = 1.0
"""At the expected count: so long without growth is the end."""
STALLED_S = 12.0
"""Below it: so long without growth is the end too, and the round is short of results."""
START_S = 120.0
INPUTS = ("raw-events", "user-profiles")

_numbers = itertools.count(1)


class Plan(msgspec.Struct, frozen=True):
    """How much each engine is given."""

    work: Workload
    faust_events: int


class Input(msgspec.Struct):
    """What lies in the topics, and what must come of it."""

    plan: Plan
    valid: list[Record]
    """The first valid events: Faust's input."""
    faust_matched: int
    headrace_valid: int
    headrace_matched: int


class Round(msgspec.Struct):
    """What one round came to."""

    job: str
    engine: str
    guarantee: str
    store: str
    events: int
    expected: int
    came: int
    distinct: int
    correct: bool
    notes: str
    events_per_second: float
    cpu_seconds_per_million: float
    rss_mb: float
    drain_seconds: float
    wall_seconds: float
    load_average: float


class Look(msgspec.Struct, frozen=True):
    """How far the output has grown, and the CPU that the engine had used by then."""

    at: float
    size: int
    cpu_s: float


class Drained(msgspec.Struct):
    """A drain, from the moment that the engine had its partitions to its last output.

    It does not begin with the first output: while the first commit is on its way an engine reads,
    decodes and works ahead, and what it has in hand by then would come out as if for nothing
    (tried: it makes 300,000 events look twice as fast as 1,000,000).
    """

    start: Look
    end: Look
    rss_mb: float
    wall_s: float


async def load_input(cluster: Cluster, plan: Plan) -> Input:
    """Fill the topics that all rounds read; work out, without any engine, what must come out."""
    work = plan.work
    await cluster.create(*INPUTS)
    profiles = list(work.profiles())
    await cluster.load("user-profiles", profiles)
    known = {key for key, _, _ in profiles}
    faults = {position for position, _ in work.faults()}
    found = Input(plan, [], 0, 0, 0)

    def noted():  # noqa: ANN202
        for number, record in enumerate(work.raw_events()):
            if number not in faults:
                matched = record[0] in known
                found.headrace_valid += 1
                found.headrace_matched += matched
                if len(found.valid) < plan.faust_events:
                    found.valid.append(record)
                    found.faust_matched += matched
            yield record

    await cluster.load("raw-events", noted())
    return found


async def drain(process: Process, mark: Watermark, start: Look, expected: int) -> Drained:
    """Watch until everything is out."""
    last = start
    while True:
        size, now = await mark.now(), time.perf_counter()
        if size > last.size:
            last = Look(now, size, process.cpu_s())
        quiet = now - last.at
        if (size >= expected and quiet > QUIET_S) or (last.size and quiet > STALLED_S):
            return Drained(start, last, process.peak_rss_mb(), last.at - process.started)
        if quiet > START_S:
            tail = process.log.read_text(errors="replace")[-3000:]
            raise RuntimeError(f"nothing came out in {START_S:g} s: {tail}")
        process.check()
        await asyncio.sleep(POLL_S)


class Bench:
    """The rounds of one run."""

    def __init__(
        self, cluster: Cluster, given: Input, home: Path, progress: Callable[[str], None]
    ) -> None:
        self._cluster = cluster
        self._given = given
        self._home = home
        self._progress = progress

    async def round(self, job: str, engine: str) -> Round:
        """Run one engine through one job, from nothing: new group, new state, new topics."""
        await self._cluster.delete_all_but(*INPUTS)
        run = f"{engine}-{job}-{os.getpid()}-{next(_numbers)}"
        load_average = round(os.getloadavg()[0], 2)
        self._progress(f"  {run}, load {load_average}")
        play = self._headrace if engine == "headrace" else self._faust
        done = await play(job, run)
        done.load_average = load_average
        return done

    def _state(self, run: str) -> str:
        state = self._home / run
        state.mkdir()
        return str(state)

    async def _headrace(self, job: str, run: str) -> Round:
        given, cluster = self._given, self._cluster
        output = "progress" if job == "passthrough" else "enriched-events"
        expected = given.headrace_valid // 20 if job == "passthrough" else given.headrace_matched
        margin = PARTITIONS if job == "passthrough" else 0  # each partition keeps a remainder
        await cluster.create(output)
        environ = {
            "HEADRACE_BROKER": cluster.bootstrap,
            "HEADRACE_STATE_DIR": self._state(run),
            "HEADRACE_PARTITIONS": str(PARTITIONS),
            "HEADRACE_RETENTION_MS": "-1",
        }
        module = ["benchmarks.headrace_worker", job, run]
        log = self._home / f"{run}.log"
        with Process(module, environ, log) as process:
            async with Watermark(cluster.bootstrap, output) as mark:
                await process.says("new tasks")
                start = Look(time.perf_counter(), 0, process.cpu_s())
                drained = await drain(process, mark, start, expected - margin)
        letters = await cluster.size("raw-events-dlq")
        events = given.plan.work.events
        came, distinct = await self._came(output)
        correct = letters == events - given.headrace_valid and expected - margin <= came <= expected
        notes = f"{letters:,} dead letters"
        if job != "passthrough":
            correct &= came == distinct == expected
        if job == "main":
            counted, in_sessions = await cluster.main_totals("clickstream")
            correct &= counted == in_sessions == given.headrace_valid
            notes += f"; {counted:,} events counted, {in_sessions:,} in sessions"
        done = _round(job, "headrace", "exactly_once", events, drained)
        return msgspec.structs.replace(
            done, store="rocksdb", expected=expected, came=came, distinct=distinct,
            correct=correct, notes=notes,
        )  # fmt: skip

    async def _faust(self, job: str, run: str) -> Round:
        given, cluster = self._given, self._cluster
        passthrough = job == "passthrough"
        output = "progress" if passthrough else "enriched-events"
        expected = len(given.valid) // 20 if passthrough else given.faust_matched
        margin = PARTITIONS if passthrough else 0
        await cluster.create(output, "valid-events")
        environ = {
            "BENCH_BROKER": cluster.bootstrap,
            "BENCH_ID": run,
            "BENCH_STATE": self._state(run),
            "BENCH_PARTITIONS": str(PARTITIONS),
        }
        app = f"benchmarks.peers.faust_{job}"
        module = ["faust", "-A", app, "worker", "--without-web", "-l", "info"]
        with Process(module, environ, self._home / f"{run}.log") as process:
            async with Watermark(cluster.bootstrap, output) as mark:
                await process.says("Ready")
                if not passthrough:
                    await self._table_full(process, f"{run}-profiles-changelog")
                start = Look(time.perf_counter(), 0, process.cpu_s())
                await cluster.load("valid-events", given.valid)
                drained = await drain(process, mark, start, expected - margin)
        came, distinct = await self._came(output)
        correct = expected - margin <= came <= expected
        correct &= passthrough or came == distinct
        done = _round(job, "faust", "at_least_once", len(given.valid), drained)
        return msgspec.structs.replace(
            done, store="memory" if passthrough else "rocksdb", expected=expected, came=came,
            distinct=distinct, correct=correct,
        )  # fmt: skip

    async def _came(self, output: str) -> tuple[int, int]:
        if output == "progress":
            came = await self._cluster.size(output)
            return came, came
        return await self._cluster.ids(output)

    async def _table_full(self, process: Process, changelog: str) -> None:
        """Wait until Faust has its profiles: it would join events without waiting for them."""
        while not await self._cluster.exists(changelog):
            process.check()
            await asyncio.sleep(0.2)
        async with Watermark(self._cluster.bootstrap, changelog) as mark:
            while await mark.now() < self._given.plan.work.profile_count:
                process.check()
                await asyncio.sleep(0.1)


def _round(job: str, engine: str, guarantee: str, events: int, drained: Drained) -> Round:
    """Make a round of what was seen."""
    seconds = drained.end.at - drained.start.at
    cpu_s = drained.end.cpu_s - drained.start.cpu_s
    return Round(
        job=job,
        engine=engine,
        guarantee=guarantee,
        store="",
        events=events,
        expected=0,
        came=0,
        distinct=0,
        correct=False,
        notes="",
        events_per_second=events / seconds,
        cpu_seconds_per_million=cpu_s / events * 1e6,
        rss_mb=drained.rss_mb,
        drain_seconds=seconds,
        wall_seconds=drained.wall_s,
        load_average=0.0,
    )
