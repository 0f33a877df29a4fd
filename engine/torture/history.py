"""Judges what happened over time: invariants I5 to I9."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from statistics import median
from typing import NamedTuple

from engine.torture.grouplog import Commit, Generation, GroupLog, Place
from engine.torture.observer import End
from engine.torture.verdict import Verdict

GROWTH_SHARE = 0.1
GROWTH_BYTES = 16 << 20
GROWTH_FILES = 8
LIFE_S = 60.0
"""A process that lived less says nothing about growth."""


class Kill(NamedTuple):
    """A worker was killed: when (ms of the wall clock), and its consumer's client id."""

    when_ms: float
    client_id: str


class Recovery(NamedTuple):
    """How long one partition of a killed worker's stood still (s)."""

    kill: Kill
    place: Place
    seconds: float


class Gauge(NamedTuple):
    """What a process held at a moment (s): resident bytes, open files."""

    at_s: float
    resident: int
    files: int


def check_commits(log: GroupLog, ends: Mapping[Place, int], verdict: Verdict) -> None:
    """Judge I5: every commit there was, not samples of them.

    Args:
        ends: where the group's input partitions end; it must have got there.
    """
    last: dict[Place, int] = {}
    back = []
    for commit in log.commits:
        if commit.offset < last.get(commit.place, 0):
            back.append(f"{_name(commit.place)} from {last[commit.place]} to {commit.offset}")
        last[commit.place] = commit.offset
    verdict.add("I5", "committed offsets that went back", back)
    short = [
        f"{_name(place)} at {last.get(place, 0)} of {end}"
        for place, end in ends.items()
        if last.get(place, 0) != end
    ]
    verdict.add("I5", "partitions not committed to their end", short)


def check_open(ends: Mapping[Place, End], verdict: Verdict) -> None:
    """Judge I6."""
    held = [
        f"{_name(place)} is stable to {end.stable} of {end.high}"
        for place, end in ends.items()
        if end.stable != end.high
    ]
    verdict.add("I6", "partitions with an open transaction", held)


def check_owners(log: GroupLog, verdict: Verdict) -> None:
    """Judge I7: in a generation, each member's partitions are committed by one producer of its own.

    The log has no member ids with the offsets, but it has the producers; a worker has one. Covered
    is every offset that was committed in a transaction. Not covered: outputs of transactions that
    were aborted, which nobody sees.
    """
    wrong = []
    for generation, commits in _by_generation(log):
        producers: dict[Place, set[int]] = defaultdict(set)
        for commit in commits:
            producers[commit.place].add(commit.producer[0])
        owner: dict[int, int] = {}  # a producer's member, by its number in the generation
        for number, member in enumerate(generation.members):
            held = set().union(*(producers.pop(place, set()) for place in member.places))
            shared = {producer for producer in held if owner.get(producer, number) != number}
            if len(held) > 1 or shared:
                wrong.append(
                    f"generation {generation.number}: {member.client_id}'s partitions by producers "
                    f"{sorted(held)}"
                )
            owner |= dict.fromkeys(held, number)
        wrong += [
            f"generation {generation.number}: {_name(place)}, which is nobody's, by {sorted(by)}"
            for place, by in producers.items()
        ]
    verdict.add("I7", "partitions committed by others than their owners", wrong)


def _by_generation(log: GroupLog) -> Iterable[tuple[Generation, list[Commit]]]:
    """Return each generation with what was committed in it."""
    ends = [*(generation.at for generation in log.generations[1:]), 1 << 62]
    for generation, end in zip(log.generations, ends, strict=False):
        yield generation, [c for c in log.commits if generation.at < c.at < end]


def recoveries(log: GroupLog, kills: Iterable[Kill], verdict: Verdict) -> list[Recovery]:
    """Measure I8: for each kill and each partition that the killed worker owned, one time.

    It goes from the kill to when the broker took the first offset, higher than the last one, from
    a producer other than the killed one, in a transaction that was committed. A worker that was
    killed before the group gave it anything owned nothing.
    """
    found = []
    for kill in kills:
        before = [g for g in log.generations if g.when_ms <= kill.when_ms]
        if not before:
            continue
        mine = [m.places for m in before[-1].members if m.client_id == kill.client_id]
        places = set().union(*mine)
        dead = {
            c.producer
            for c in log.commits
            if before[-1].at < c.at and c.when_ms <= kill.when_ms and c.place in places
        }
        for place in sorted(places):
            at = [c for c in log.commits if c.place == place]
            held = max((c.offset for c in at if c.when_ms <= kill.when_ms), default=0)
            moved = next(
                (
                    c
                    for c in at
                    if c.when_ms > kill.when_ms and c.producer not in dead and c.offset > held
                ),
                None,
            )
            if moved is not None:
                found.append(Recovery(kill, place, (moved.when_ms - kill.when_ms) / 1000))
            elif at and at[-1].offset > held:
                verdict.add("I8", "partitions that only their killed owner went on with",
                            [_name(place)])  # fmt: skip
    return found


def check_gauges(gauges: Mapping[str, list[Gauge]], verdict: Verdict) -> None:
    """Judge I9 of each process that lived for a minute: the last quarter against the one before.

    Memory may grow by a tenth or 16 MiB, open files by a tenth or 8, whichever is more.
    """
    grown = []
    for name, samples in gauges.items():
        if len(samples) < 8 or samples[-1].at_s - samples[0].at_s < LIFE_S:  # noqa: PLR2004
            continue
        half, most = len(samples) // 2, len(samples) * 3 // 4
        third, fourth = samples[half:most], samples[most:]
        for what, slack in (("resident", GROWTH_BYTES), ("files", GROWTH_FILES)):
            was, now = (median(getattr(g, what) for g in part) for part in (third, fourth))
            if now - was > max(GROWTH_SHARE * was, slack):
                grown.append(f"{name}: {what} {was:,.0f}, then {now:,.0f}")
    verdict.add("I9", "processes that grow", grown)


def percentile(values: list[float], share: float) -> float | None:
    """Return the value that a share of them does not exceed (nearest rank); None of none."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * round(share * 1000) // 1000) - 1)]


def _name(place: Place) -> str:
    return f"{place[0]}[{place[1]}]"
