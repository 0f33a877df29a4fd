"""Patterns against a definition of what a match is, and against themselves after restarts."""

import collections
import json
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from engine import Late, Match, Pattern, Timeout
from engine.pattern import skip_past_last_event, skip_to_first, skip_to_last, skip_to_next
from tables.codec import Codec
from tables.memory import MemoryStore
from tables.partials import Skip
from tables.pattern import PatternPartition, Plan, restored

VALUE = Codec(lambda value: json.dumps(value).encode(), json.loads)
LETTERS = "abc"


def plan_for(pattern, **options):
    return Plan("p", pattern.compiled(), pattern.shape(), pattern.skip, **options)


def meets(letters):
    return lambda event: event["type"] in letters


class Described(NamedTuple):
    """A step in the words of the definition."""

    name: str
    how: str
    letters: str
    least: int = 1
    most: int | None = 1
    inside: str = "followed_by"
    optional: bool = False


@st.composite
def described(draw):
    steps = []
    for number in range(draw(st.integers(1, 3))):
        least = draw(st.sampled_from([1, 1, 1, 2]))
        steps.append(
            Described(
                f"s{number}",
                draw(st.sampled_from(["next", "followed_by", "followed_by_any"])),
                draw(st.sampled_from(["a", "b", "c", "ab", "bc"])),
                least,
                draw(st.sampled_from([least, least, least + 1, None])),
                draw(st.sampled_from(["followed_by", "next", "followed_by_any"])),
                draw(st.sampled_from([False, False, True])),
            )
        )
    return steps


def build(steps, within_ms, skip=Skip()):  # noqa: B008
    pattern = None
    for step in steps:
        if pattern is None:
            pattern = Pattern.begin(step.name, skip=skip)
        else:
            pattern = getattr(pattern, step.how)(step.name)
        pattern = pattern.where(meets(step.letters))
        if (step.least, step.most) != (1, 1):
            if step.most is None:
                pattern = pattern.times_or_more(step.least)
            else:
                pattern = pattern.times(step.least, step.most)
            if step.inside == "next":
                pattern = pattern.consecutive()
            elif step.inside == "followed_by_any":
                pattern = pattern.allow_combinations()
        if step.optional:
            pattern = pattern.optional()
    return pattern if within_ms is None else pattern.within(within_ms / 1000)


def following(events, at, how, letters):
    """Yield the places of the events that may come after the one at ``at``; -1: begin anywhere."""
    if at < 0:
        yield from (i for i, event in enumerate(events) if event["type"] in letters)
        return
    for i in range(at + 1, len(events)):
        if events[i]["type"] in letters:
            yield i
            if how != "followed_by_any":
                return
        if how == "next":
            return


def matches_of(events, steps, at=-1):
    """Yield every way to match ``steps`` behind place ``at``, as (step's name, place) rows."""
    if not steps:
        yield ()
        return
    if steps[0].optional:
        yield from matches_of(events, steps[1:], at)
    yield from ways(events, steps, at, 0)


def ways(events, steps, at, count):
    """Yield the ways to go on, where the first of ``steps`` has taken ``count`` events."""
    step = steps[0]
    if count >= step.least:
        yield from matches_of(events, steps[1:], at)
    if step.most is None or count < step.most:
        how = step.inside if count else step.how
        for place in following(events, at, how, step.letters):
            for rest in ways(events, steps, place, count + 1):
                yield (step.name, place), *rest


def expected(events, steps, within_ms):
    events = sorted(events, key=lambda event: event["ts"])  # stable: ties keep their order
    found = collections.Counter()
    for rows in matches_of(events, steps):
        taken = [(name, events[place]) for name, place in rows]
        if taken and (within_ms is None or taken[-1][1]["ts"] - taken[0][1]["ts"] < within_ms):
            found[tuple((name, event["id"]) for name, event in taken)] += 1
    return found


def by_step(found):
    return tuple((name, event["id"]) for name, events in found.events.items() for event in events)


@st.composite
def streams(draw, most=9):
    """Events of one key in the order of arrival, and how far one can be behind the newest."""
    times = draw(st.lists(st.integers(0, 12), min_size=1, max_size=most))
    kinds = draw(st.lists(st.sampled_from(LETTERS), min_size=len(times), max_size=len(times)))
    return [
        {"id": i, "ts": ts, "type": kind}
        for i, (ts, kind) in enumerate(zip(times, kinds, strict=True))
    ]


@settings(max_examples=200, deadline=None)
@given(streams(), described(), st.sampled_from([None, None, 3, 6]))
def test_matches_are_those_of_the_definition(events, steps, within_ms):
    plan = plan_for(build(steps, within_ms), delay_ms=12)
    partition = PatternPartition("p", MemoryStore(), plan=plan, value=VALUE)
    results = []
    for event in events:
        results += partition.step(0, b"k", event["ts"], event)
    results += partition.close_all()
    assert collections.Counter(by_step(each.value) for each in results) == expected(
        events, steps, within_ms
    )


SKIPS = [Skip(), skip_to_next(), skip_past_last_event(), skip_to_first("s0"), skip_to_last("s0")]


class Life(NamedTuple):
    """How a worker lives: how often it commits, what it remembers, whether its disk survives."""

    every: int
    cache_entries: int
    keep: bool


LIVES = st.builds(Life, st.integers(1, 3), st.sampled_from([0, 1, 1000]), st.booleans())


@settings(max_examples=100, deadline=None)
@given(
    st.lists(streams(6), min_size=1, max_size=3),
    described(),
    st.sampled_from([None, 3, 6]),
    st.sampled_from(SKIPS),
    LIVES,
)
def test_restarts_change_nothing(keys, steps, within_ms, skip, life):
    """Cut, commit and start anew after every few events, the store kept or rebuilt: the same."""
    plan = plan_for(build(steps, within_ms, skip), delay_ms=2, timeouts=True, late=True, limit=20)
    rows = [(b"k%d" % k, event) for k, events in enumerate(keys) for event in events]

    def run(*, restarting):
        store, log, results = MemoryStore(), {}, []
        partition = PatternPartition("p", store, plan=plan, value=VALUE)
        for number, (key, event) in enumerate(rows):
            results += partition.step(0, key, event["ts"], event)
            if not restarting or number % life.every:
                continue
            cut = partition.cut()
            store.write(cut.store)
            partition.cache_entries = life.cache_entries
            partition.committed()
            log |= dict(cut.changelog)
            if number // life.every % 2:  # the worker dies
                if not life.keep:
                    store = MemoryStore()
                    left = [(k, raw) for k, raw in log.items() if raw is not None]
                    store.write(restored("p", left, plan))
                time = partition.stream_time
                partition = PatternPartition("p", store, plan=plan, value=VALUE)
                partition.stream_time = time
        results += partition.close_all()
        return results

    def text(results):
        return [(each.key, each.ts, repr(each.value)) for each in results]

    assert text(run(restarting=True)) == text(run(restarting=False))


def test_the_definition_tells_matches_timeouts_and_late_events_apart():
    """Nothing above is empty talk: a stream with one of each."""
    pattern = build([Described("s0", "next", "a"), Described("s1", "followed_by", "b")], 5)
    plan = plan_for(pattern, timeouts=True, late=True)
    partition = PatternPartition("p", MemoryStore(), plan=plan, value=VALUE)
    results = []
    for ts, kind in [(1, "a"), (3, "b"), (4, "a"), (20, "c"), (2, "a")]:
        results += partition.step(0, b"k", ts, {"id": ts, "type": kind})
    assert [(each.ts, each.value) for each in results] == [
        (3, Match("p", {"s0": [{"id": 1, "type": "a"}], "s1": [{"id": 3, "type": "b"}]}, 1, 3)),
        (9, Timeout("p", {"s0": [{"id": 4, "type": "a"}]}, 4, 9)),
        (2, Late("p", 2, {"id": 2, "type": "a"})),
    ]
