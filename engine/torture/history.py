"""Judges what happened over time: invariants I5 to I9."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
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
    """Judge I7: in a generation a partition has one committer, and a committer one member.

    The log has no member ids with the offsets, but the producers that sent them. Covered is every
    offset that was committed in a transaction, where each worker has a producer of its own; with a
    producer a task (``producers=task``) only that an older epoch never commits after a newer one.
    Not covered: transactions that were aborted, which nobody sees.
    """
    wrong = []
    for generation, commits in _by_generation(log):
        name = f"generation {generation.number}"
        owner = {p: n for n, member in enumerate(generation.members) for p in member.places}
        members: dict[int, set[int]] = defaultdict(set)
        producers: dict[Place, set[int]] = defaultdict(set)
        for commit in commits:
            producers[commit.place].add(commit.producer[0])
            if commit.place in owner:
                members[commit.producer[0]].add(owner[commit.place])
        wrong += [f"{name}: {_name(p)}, which is nobody's" for p in producers if p not in owner]
        wrong += [
            f"{name}: {_name(place)} by producers {sorted(by)}"
            for place, by in producers.items()
            if len(by) > 1
        ]
        wrong += [
            f"{name}: producer {producer} for {len(of)} members"
            for producer, of in members.items()
            if len(of) > 1
        ]
    verdict.add("I7", "partitions committed by others than their owners", wrong)
    verdict.add("I7", "commits of producers that were fenced", list(_fenced(log)))


def _fenced(log: GroupLog) -> Iterator[str]:
    newest: dict[tuple[Place, int], int] = {}
    for commit in log.commits:
        number, epoch = commit.producer
        if epoch < newest.get((commit.place, number), epoch):
            yield f"{_name(commit.place)} by producer {number} in epoch {epoch}"
        newest[commit.place, number] = max(epoch, newest.get((commit.place, number), epoch))


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
    by_place: dict[Place, list[Commit]] = defaultdict(list)
    for commit in log.commits:
        by_place[commit.place].append(commit)
    for kill in kills:
        before = [g for g in log.generations if g.when_ms <= kill.when_ms]
        mine = (
            [m.places for m in before[-1].members if m.client_id == kill.client_id]
            if before
            else []
        )
        places = set().union(*mine)
        for place in sorted(places):
            until = [c for c in by_place[place] if c.when_ms <= kill.when_ms]
            later = by_place[place][len(until) :]
            dead = {c.producer for c in until if c.at > before[-1].at}
            held = max((c.offset for c in until), default=0)
            moved = [c for c in later if c.offset > held]
            by_heir = next((c for c in moved if c.producer not in dead), None)
            if by_heir is not None:
                found.append(Recovery(kill, place, (by_heir.when_ms - kill.when_ms) / 1000))
            elif moved:
                where = [_name(place)]
                verdict.add("I8", "partitions that only their killed owner went on with", where)
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
