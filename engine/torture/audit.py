"""From a broker and some state directories to a verdict: one call for campaigns and tests."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
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
    topics = [*job.inputs, *job.written]
    widths = await observer.widths(bootstrap, [OFFSETS_TOPIC, *topics])
    offsets = OFFSETS_TOPIC, grouplog.partition_of(job.app, widths.pop(OFFSETS_TOPIC))
    places = [offsets, *((topic, n) for topic, width in widths.items() for n in range(width))]
    ends = await settled(bootstrap, places, open_s)
    history.check_open(ends, verdict)
    for numbers in _parts(widths):
        seen = await observer.observe(bootstrap, topics, partitions=numbers)
        mine = [store for store in held if numbers is None or store.partition in numbers]
        verdict.merge(checker.check(Evidence(job, seen, mine)))
    log = await group_log(bootstrap, job.app)
    inputs = {place: end.high for place, end in ends.items() if place[0] in job.inputs}
    history.check_commits(log, inputs, verdict)
    history.check_owners(log, verdict)
    return verdict


def _parts(widths: Mapping[str, int]) -> list[list[int] | None]:
    """Return what may be judged by itself, so that not everything need be in memory at once.

    Where topics have different numbers of partitions that is everything together (None).
    """
    [width, *others] = set(widths.values())
    return [None] if others else [[number] for number in range(width)]


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
    seen = await observer.observe(bootstrap, [OFFSETS_TOPIC], partitions=[number])
    return grouplog.read(group, seen.topics[OFFSETS_TOPIC])
