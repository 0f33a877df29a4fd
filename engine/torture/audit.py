"""From a broker and some state directories to a verdict: one call for campaigns and tests."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from pathlib import Path

from engine.torture import checker, grouplog, history, observer, stores
from engine.torture.checker import Evidence, Job
from engine.torture.grouplog import OFFSETS_TOPIC, GroupLog, Place
from engine.torture.observer import End
from engine.torture.verdict import Verdict

OPEN_S = 20.0
"""Twice a transaction's timeout: what is open longer is open for good."""
LOOK_S = 0.2


async def audit(
    bootstrap: str, job: Job, homes: Iterable[Path] = (), *, open_s: float = OPEN_S
) -> Verdict:
    """Judge I1 to I7 of a job whose input is worked off and whose workers have ended.

    Args:
        homes: the state directories of all its workers, those that were given up too.
        open_s: how long a transaction may be left open.
    """
    verdict = Verdict()
    held = stores.dump(homes)
    ends = await settled(bootstrap, await _places(bootstrap, job), open_s)
    history.check_open(ends, verdict)
    for number in range(job.partitions):
        seen = await observer.observe(bootstrap, [*job.inputs, *job.written], [number])
        mine = [store for store in held if store.partition == number]
        verdict.merge(checker.check(Evidence(job, seen, mine)))
    log = await group_log(bootstrap, job.app)
    inputs = {place: end.high for place, end in ends.items() if place[0] in job.inputs}
    history.check_commits(log, inputs, verdict)
    history.check_owners(log, verdict)
    return verdict


async def _places(bootstrap: str, job: Job) -> list[Place]:
    """Return every partition that a transaction of the job's can be open on, and the inputs."""
    widths = await observer.widths(bootstrap, [OFFSETS_TOPIC])
    offsets = grouplog.partition_of(job.app, widths[OFFSETS_TOPIC])
    topics = [*job.inputs, *job.written]
    return [(OFFSETS_TOPIC, offsets), *((t, n) for t in topics for n in range(job.partitions))]


async def settled(bootstrap: str, places: Collection[Place], wait_s: float) -> dict[Place, End]:
    """Return where partitions end once no transaction is open on them, or after ``wait_s``."""
    left_s = wait_s
    while True:
        ends = await observer.ends(bootstrap, places)
        if left_s <= 0 or all(end.stable == end.high for end in ends.values()):
            return ends
        await asyncio.sleep(LOOK_S)
        left_s -= LOOK_S


async def group_log(bootstrap: str, group: str) -> GroupLog:
    """Read what the group's coordinator has written down about it."""
    widths = await observer.widths(bootstrap, [OFFSETS_TOPIC])
    number = grouplog.partition_of(group, widths[OFFSETS_TOPIC])
    seen = await observer.observe(bootstrap, [OFFSETS_TOPIC], [number])
    return grouplog.read(group, seen.topics[OFFSETS_TOPIC])
