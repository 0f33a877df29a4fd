"""Patterns on the true engine, what is refused when one is built, and what is kept of it."""

import json
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from engine import (
    App,
    Late,
    Match,
    Pattern,
    Timeout,
    skip_to_first,
)
from engine.errors import ConfigError
from engine.matcher import Matcher
from engine.testing import Driver
from tables.codec import Codec
from tables.memory import MemoryStore
from tables.pattern import PatternPartition, Plan

VALUE = Codec(lambda value: json.dumps(value).encode(), json.loads)


class Action(msgspec.Struct):
    kind: str
    amount: int = 0


def kind(name):
    return lambda event: event.kind == name


BOUGHT = (
    Pattern.begin("login").where(kind("login")).followed_by("buy").where(kind("buy")).within(10)
)


def declared(view, **options):
    app = App("patterns")
    actions = app.topic("actions", value_type=Action, key_type=str, partitions=1)
    out = app.topic("out", value_type=Any, key_type=str, partitions=1)

    def told(key, found):
        match found:
            case Match():
                return {"match": [key, found.one("buy").amount, found.start, found.end]}
            case Timeout():
                return {"timeout": [key, found.start, found.end]}
            case Late():
                return {"late": [key, found.event.kind, found.ts]}

    if view == "channel":
        bought = app.Match("bought", actions, BOUGHT, timeouts=True, late=True, **options)

        @app.agent(bought, sink=[out])
        async def tell(results):
            async for key, found in results.items():
                yield told(key, found)
    else:

        @app.agent(actions, sink=[out])
        async def tell(stream):
            results = stream.match(BOUGHT, timeouts=True, late=True, **options)
            async for key, found in results.items():
                yield told(key, found)

    return app


def rows(driver):
    return [(each.key, each.value, each.timestamp) for each in driver.read("out")]


@pytest.mark.parametrize("view", ["channel", "view"])
@pytest.mark.parametrize("crash", ["never", "stores kept", "stores lost"])
def test_matches_timeouts_and_late_events_come_with_their_own_key_and_time(view, crash):
    events = [
        ("ann", "login", 0, 1_000),
        ("bob", "login", 0, 2_000),
        ("ann", "buy", 7, 5_000),
        ("bob", "look", 0, 12_000),
        ("bob", "buy", 9, 12_001),
        ("eve", "look", 0, 15_000),
        ("eve", "login", 0, 4_000),
    ]
    got = []
    with Driver(declared(view, delay=2)) as driver:
        for key, what, amount, ts in events:
            driver.pipe("actions", key=key, value=Action(what, amount), timestamp=ts)
            got += rows(driver)
            if crash != "never":
                driver.crash()
                if crash == "stores lost":
                    driver.broker.stores.clear()
                driver.restart()
    assert got == [
        ("ann", {"match": ["ann", 7, 1_000, 5_000]}, 5_000),
        ("bob", {"timeout": ["bob", 2_000, 12_000]}, 12_000),
        ("eve", {"late": ["eve", "login", 4_000]}, 4_000),
    ]


def test_late_events_and_dropped_partial_matches_are_counted():
    with Driver(declared("channel", limit=1)) as driver:
        for what, ts in (("login", 1), ("login", 2), ("login", 3), ("look", 9), ("login", 4)):
            driver.pipe("actions", key="ann", value=Action(what), timestamp=ts)
        engine = driver._engine
        engine._health.look(engine.checkpoint, engine.assignment, now=True)
        text = engine.metrics.text().decode()
    assert 'headrace_late_records{table="bought"} 1.0' in text
    assert 'headrace_partial_matches_dropped{table="bought"} 2.0' in text


def test_without_a_key_or_a_value_an_event_is_none():
    partition = opened(BOUGHT)
    assert partition.step(0, None, 1, Action("login")) == ()
    assert partition.step(0, b"k", 1, None) == ()
    assert partition.items() == []


# -- what is refused -------------------------------------------------------------------------------

A = Pattern.begin("a").where(kind("a"))
LOOP = A.one_or_more()


def test_durations_are_said_in_seconds_as_text_or_as_timedelta():
    for hour in (3600, "1h", timedelta(hours=1)):
        assert A.within(hour).steps[-1].within_ms == 3_600_000
    topic = App("durations").topic("t")
    assert Matcher("m", topic, A, delay="1m").plan.delay_ms == 60_000


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: A.next("a"), "two steps named"),
        (lambda: A.next(""), "a name is"),
        (lambda: A.next("b:0"), "a name is"),
        (lambda: A.times(0, 0), "least"),
        (lambda: A.times(3, 2), "least"),
        (lambda: A.times_or_more(0), "1 or more"),
        (lambda: A.times(2).one_or_more(), "one of them is enough"),
        (lambda: A.optional().optional(), "twice"),
        (lambda: A.optional().not_next("b"), "two patterns"),
        (lambda: A.times(0, 2).not_followed_by("b"), "two patterns"),
        (A.greedy, "goes with"),
        (lambda: LOOP.allow_combinations().greedy(), "exclude each other"),
        (lambda: LOOP.greedy().next("b").optional(), "behind a greedy one"),
        (lambda: A.followed_by_any("b").one_or_more().greedy(), "use followed_by"),
        (A.consecutive, "goes with"),
        (A.allow_combinations, "goes with"),
        (lambda: LOOP.consecutive().allow_combinations(), "said already"),
        (lambda: LOOP.consecutive().consecutive(), "said already"),
        (lambda: A.until(kind("x")), "goes with"),
        (lambda: A.times(2).until(kind("x")), "goes with"),
        (lambda: LOOP.until(kind("x")).until(kind("y")), "twice"),
        (lambda: A.not_next("b").times(2), "takes no events"),
        (lambda: A.not_next("b").optional(), "takes no events"),
        (lambda: A.not_followed_by("b").greedy(), "takes no events"),
        (lambda: A.within(0), "above 0"),
        (lambda: A.where("a"), "a function of the event"),
        (lambda: A.where(lambda: True), "a condition takes"),
        (lambda: A.where(lambda a, b, c: True), "a condition takes"),
        (lambda: A.not_followed_by("b").compiled(), "needs within"),
        (lambda: A.within(1).next("b").within(2, between="previous_and_current").compiled(),
         "more time than the whole match"),
        (lambda: Pattern.begin("a", skip=skip_to_first("z")).next("b").compiled(),
         "no such step"),
    ],
)  # fmt: skip
def test_what_flink_refuses_is_refused_with_a_sentence(build, says):
    with pytest.raises(ConfigError, match=says):
        build()


@pytest.mark.parametrize("option", [{"delay": -1}, {"limit": 0}])
def test_options_out_of_range_are_refused(option):
    app = App("refused")
    actions = app.topic("actions", value_type=Action, key_type=str, partitions=1)
    with pytest.raises(ConfigError):
        app.Match("bought", actions, BOUGHT, **option)


def test_a_pattern_is_never_changed():
    before = A.steps
    assert A.next("b").times(2).steps[0] is before[0]
    assert A.steps is before


# -- the partition ---------------------------------------------------------------------------------


def opened(pattern, store=None, **options):
    plan = Plan("p", pattern.compiled(), pattern.shape(), pattern.skip, timeouts=True, **options)
    encode = Codec(msgspec.json.Encoder().encode, msgspec.json.Decoder(Action).decode)
    return PatternPartition("p", store or MemoryStore(), plan=plan, value=encode)


def test_a_condition_sees_what_was_matched_before_it():
    more = (
        A.one_or_more()
        .consecutive()
        .next("b")
        .where(kind("b"))
        .where(lambda e, before: e.amount > sum(each.amount for each in before["a"]))
    )
    partition = opened(more)
    found = []
    for ts, (what, amount) in enumerate([("a", 2), ("a", 2), ("b", 3)], 1):
        found += partition.step(0, b"k", ts, Action(what, amount))
    found += partition.close_all()
    assert [[e.amount for e in each.value["a"]] for each in found] == [[2]]


def test_a_condition_that_asks_for_no_step_of_the_pattern_is_told_so():
    partition = opened(A.next("b").where(lambda _, before: before["z"]))
    partition.step(0, b"k", 1, Action("a"))
    partition.step(0, b"k", 2, Action("b"))
    with pytest.raises(KeyError, match="no step 'z': it has a, b"):
        partition.close_all()


def test_where_and_or_where_combine_in_the_order_in_which_they_are_said():
    step = (
        Pattern.begin("x")
        .where(kind("a"))
        .where(lambda e, _: e.amount > 1)
        .or_where(kind("b"))
        .where(lambda e: e.amount < 9)
    )
    partition = opened(step)
    found = []
    for ts, (what, amount) in enumerate([("a", 1), ("a", 2), ("b", 0), ("b", 9), ("c", 5)], 1):
        found += partition.step(0, b"k", ts, Action(what, amount))
    found += partition.close_all()
    assert [(e.value.one("x").kind, e.value.one("x").amount) for e in found] == [("a", 2), ("b", 0)]


def test_one_step_is_one_event_or_says_why_not():
    match = Match("p", {"a": [1, 2]}, 0, 0)
    assert match["a"] == [1, 2]
    assert match["b"] == []
    assert "a" in match
    assert "b" not in match
    for step in ("a", "b"):
        with pytest.raises(LookupError, match="took"):
            match.one(step)


def test_the_oldest_partial_match_goes_when_a_key_has_too_many():
    partition = opened(BOUGHT, limit=2)
    for ts in (1, 2, 3, 4):
        partition.step(0, b"k", ts, Action("login"))
    partition.advance(4)
    assert [start for _, start, _ in partition.items()] == [3, 4]
    assert partition.dropped == 2


def test_a_limit_between_neighbours_is_kept_by_time():
    pattern = A.followed_by("b").where(kind("b")).within(0.01, between="previous_and_current")
    partition = opened(pattern)
    partition.step(0, b"k", 1, Action("a"))
    found = partition.step(0, b"other", 20, Action("x"))
    assert [(each.key, each.ts, type(each.value)) for each in found] == [(b"k", 11, Timeout)]


def test_nothing_is_left_of_a_key_that_waits_for_nothing():
    store = MemoryStore()
    partition = opened(BOUGHT, store)
    for ts, what in ((1, "login"), (2, "buy")):
        partition.step(0, b"k", ts, Action(what))
        store.write(partition.cut().store)
        partition.committed()
    assert [key for key, _ in store.scan("p")] != []
    partition.advance(100)
    cut = partition.cut()
    store.write(cut.store)
    partition.committed()
    assert cut.changelog == [(key, None) for key, _ in cut.changelog]
    assert store.scan("p") == []
    assert partition.held() == 0


def test_of_many_partial_matches_only_what_has_changed_is_written():
    partition = opened(BOUGHT)
    for ts in range(1_000):
        partition.step(0, b"k", ts, Action("login"))
    partition.advance(999)
    assert len(partition.cut().changelog) > 90
    partition.committed()
    partition.step(0, b"k", 1_001, Action("login"))
    partition.advance(1_001)
    assert len(partition.cut().changelog) == 1


def test_memory_is_counted_by_what_keys_hold_and_given_back():
    store = MemoryStore()
    partition = opened(BOUGHT, store)
    partition.cache_entries = 1
    for key, count in ((b"much", 500), (b"little", 1)):
        for _ in range(count):
            partition.step(0, key, 1, Action("login"))
    partition.advance(2)
    store.write(partition.cut().store)
    assert partition.held() > 500 * 3 * 300
    partition.committed()
    assert partition.held() < 2_000  # only the little one is left
    assert len(partition.items()) == 501


def test_events_that_mean_nothing_to_a_pattern_are_not_kept():
    partition = opened(BOUGHT)
    for ts in range(9):
        partition.step(0, b"k", ts, Action("look"))
    assert partition.cut().changelog == []
    strict = opened(A.next("b").where(kind("b")))
    strict.step(0, b"k", 1, Action("a"))
    strict.step(0, b"k", 2, Action("look"))  # it ends the partial match
    assert len(strict.step(0, b"k", 3, Action("b"))) == 0
    assert strict.close_all() == []


def test_stored_partial_matches_of_another_pattern_are_refused():
    store = MemoryStore()
    partition = opened(BOUGHT, store)
    partition.step(0, b"k", 1, Action("login"))
    store.write(partition.cut().store)
    other = opened(BOUGHT.next("more"), store)
    with pytest.raises(ValueError, match="another pattern"):
        other.step(0, b"k", 2, Action("login"))


def test_places_are_made_anew_when_there_is_no_room_between_two_runs():
    """The same matches in the same order, however close the places of partial matches are."""
    pattern = (
        Pattern.begin("a")
        .where(kind("a"))
        .followed_by_any("b")
        .where(kind("b"))
        .one_or_more()
        .allow_combinations()
        .followed_by("c")
        .where(kind("c"))
    )

    def run(*, squeezed):
        store, found = MemoryStore(), []
        partition = opened(pattern, store)
        for ts, what in enumerate("aabbabbbxcbc", 1):
            found += partition.step(0, b"k", ts, Action(what, ts))
            if squeezed:
                store.write(partition.cut().store)
                squeeze(store)
                partition = opened(pattern, store)
                partition.stream_time = ts
        return [repr(each) for each in [*found, *partition.close_all()]]

    assert run(squeezed=True) == run(squeezed=False) != []


def squeeze(store):
    """Leave no room between the places of stored partial matches."""
    pages = [(key, *msgspec.msgpack.decode(raw)) for key, raw in store.scan("p")]
    runs = [row for _, _, rows in pages for row in rows if row[1] == 3]
    for place, row in enumerate(sorted(runs, key=lambda row: row[-1])):
        row[-1] = place
    store.write({"p": [(key, msgspec.msgpack.encode((shape, rows))) for key, shape, rows in pages]})
