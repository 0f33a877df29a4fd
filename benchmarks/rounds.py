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
    """One growth of the output, and the CPU that the engine had used by then."""

    at: float
    size: int
    cpu_s: float


class Drained(msgspec.Struct):
    """A drain as seen in the output topic's watermark: each growth, from the first to the last."""

    looks: list[Look]
    rss_mb: float
    wall_s: float

    @property
    def middle(self) -> tuple[Look, Look]:
        """The growths at a tenth and at nine tenths of the whole.

        Between them the engine runs evenly. Before the first results come out it has already
        worked on the records that are in flight; counting from there would flatter an engine that
        commits seldom.
        """
        whole = self.looks[-1].size
        start = next(look for look in self.looks if look.size >= whole * 0.1)
        end = next(look for look in self.looks if look.size >= whole * 0.9)
        return (start, end) if end.at > start.at else (self.looks[0], self.looks[-1])


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


async def drain(
    process: Process, mark: Watermark, expected: int, progress: Callable[[str], None]
) -> Drained:
    """Watch until everything is out."""
    looks: list[Look] = []
    while True:
        size, now = await mark.now(), time.perf_counter()
        if size > (looks[-1].size if looks else 0):
            looks.append(Look(now, size, process.cpu_s()))
        if looks:
            quiet = now - looks[-1].at
            if (size >= expected and quiet > QUIET_S) or quiet > STALLED_S:
                break
        elif now - process.started > START_S:
            tail = process.log.read_text()[-3000:]
            raise RuntimeError(f"nothing came out in {START_S:g} s: {tail}")
        process.check()
        await asyncio.sleep(POLL_S)
    if len(looks) == 1:
        raise RuntimeError("all results were there at the first look: give more events")
    first, last = looks[0], looks[-1]
    progress(f"    {last.size:,} records {last.at - first.at:.2f} s after the first {first.size:,}")
    return Drained(looks, process.peak_rss_mb(), last.at - process.started)


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
                drained = await drain(process, mark, expected - margin, self._progress)
        letters = (await cluster.sizes("raw-events-dlq"))["raw-events-dlq"]
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
        if passthrough:
            await cluster.load("valid-events", given.valid)
        with Process(module, environ, self._home / f"{run}.log") as process:
            if not passthrough:
                await self._table_full(process, f"{run}-profiles-changelog")
                await cluster.load("valid-events", given.valid)
            async with Watermark(cluster.bootstrap, output) as mark:
                drained = await drain(process, mark, expected - margin, self._progress)
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
            came = (await self._cluster.sizes(output))[output]
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
    """Make a round of what was seen; rates are those of the middle of the drain."""
    first, last = drained.looks[0], drained.looks[-1]
    start, end = drained.middle
    between = events * (end.size - start.size) / last.size
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
        events_per_second=between / (end.at - start.at),
        cpu_seconds_per_million=(end.cpu_s - start.cpu_s) / between * 1e6,
        rss_mb=drained.rss_mb,
        drain_seconds=last.at - first.at,
        wall_seconds=drained.wall_s,
        load_average=0.0,
    )
