"""Aggregates say what the definition of each says, and the same after a restart and a merge."""

import math
from collections import Counter

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import App, Contract
from engine.aggregates import (
    Aggregates,
    Avg,
    Collect,
    Count,
    Distinct,
    First,
    Largest,
    Last,
    Max,
    Min,
    Quantile,
    Quantiles,
    Reduce,
    Sum,
    TopK,
)  # fmt: skip
from engine.errors import ConfigError
from engine.testing import Driver
from tables.codec import value_codec


class Visit(msgspec.Struct, frozen=True):
    """An event."""

    user: str
    kind: str
    page: str | None
    value: float
    at: int


def longest(one, other):
    return max(one, other, key=lambda word: (len(word), word))


class Totals(Aggregates):
    """One of each."""

    events = Count()
    views = Count(where={"kind": "view"})
    dear_views = Count(where={"kind": "view", "value": 3})
    with_page = Count("page")
    spent = Sum(Visit.value)
    mean = Avg("value")
    least = Min("value")
    most = Max(lambda visit: visit.value)
    median = Quantile("value", 0.5)
    quartiles = Quantiles("value", 0.25, 0.75, error=0.02)
    pages = Distinct("page")
    about_pages = Distinct("page", exact=False)
    first_page = First("page", at="at")
    last_page = Last("page", at=Visit.at)
    top = TopK("page", 2, capacity=100)
    largest = Largest("value", 3)
    history = Collect("page", most=5)
    word = Reduce("page", reduce=longest, initial=str, merge=longest)


class Small(Aggregates):
    """What is emitted below."""

    events = Count()
    spent = Sum("value")
    first_page = First("page")
    last_page = Last("page")


def definition(visits):
    """The results by their definitions: of all events at once."""
    pages = [visit.page for visit in visits if visit.page is not None]
    timed = [visit for visit in visits if visit.page is not None]
    values = sorted(visit.value for visit in visits)
    return {
        "events": len(visits),
        "views": sum(visit.kind == "view" for visit in visits),
        "dear_views": sum(visit.kind == "view" and visit.value == 3 for visit in visits),
        "with_page": len(pages),
        "spent": sum(values),
        "mean": sum(values) / len(values) if values else None,
        "least": values[0] if values else None,
        "most": values[-1] if values else None,
        "pages": len(set(pages)),
        "about_pages": len(set(pages)),  # exact, for so few
        "first_page": min(timed, key=lambda v: v.at).page if timed else None,
        "last_page": max(reversed(timed), key=lambda v: v.at).page if timed else None,
        "top": sorted(Counter(pages).items(), key=lambda pair: (-pair[1], pages.index(pair[0])))[
            :2
        ],
        "largest": values[::-1][:3],
        "history": pages[-5:],
        "word": max(pages, key=lambda word: (len(word), word), default=""),
    }


def check(totals, visits):
    for name, expected in definition(visits).items():
        assert getattr(totals, name) == expected, name
    values = sorted(visit.value for visit in visits)
    for q, found, error in zip(
        (0.5, 0.25, 0.75), (totals.median, *totals.quartiles), (0.01, 0.02, 0.02), strict=True
    ):
        if not values:
            assert found is None
        else:
            exact = values[math.floor(q * (len(values) - 1))]
            assert found == pytest.approx(exact, rel=error * 1.000001, abs=0)


def again(totals):
    """The same after a commit and a restart."""
    codec = value_codec(type(totals))
    return codec.decode(codec.encode(totals))


visits = st.lists(
    st.builds(
        Visit,
        user=st.just("u"),
        kind=st.sampled_from(["view", "click"]),
        page=st.sampled_from(["a", "b", "c", "dd", "éé", None]),
        value=st.integers(-5, 5) | st.sampled_from([0.5, 0.25, 1e6]),  # sums of them are exact
        at=st.integers(0, 5),
    ),
    max_size=30,
)


@given(visits, st.sets(st.integers(0, 30)))
def test_each_is_what_its_definition_says(visits, restarts):
    totals = Totals()
    for number, visit in enumerate(visits):
        assert totals.add(visit) is totals
        if number in restarts:
            totals = again(totals)
    check(totals, visits)


@given(visits, visits, visits)
def test_merged_they_are_those_of_all_events(one, other, third):
    """In the order in which they were merged: that is what ties and collections go by."""
    totals = [Totals() for _ in range(3)]
    for total, share in zip(totals, (one, other, third), strict=True):
        for visit in share:
            total.add(visit)
    first, second, last = map(again, totals)
    check(first.merge(second).merge(last), one + other + third)


def test_the_newest_of_equal_times_is_last_and_the_oldest_first():
    totals = Totals()
    for page, at in [("b", 5), ("a", 5), ("late", 1), ("late too", 1)]:
        totals.add(Visit("u", "view", page, 0, at))
    assert (totals.first_page, totals.last_page) == ("late", "a")


def test_a_null_event_counts_and_adds_to_nothing_else():
    totals = Totals().add(None)
    assert totals.events == 1
    check_rest = definition([]) | {"events": 1}
    assert {name: getattr(totals, name) for name in check_rest} == check_rest


def test_events_without_a_type_are_read_by_their_keys():
    totals = Small().add({"value": 2, "kind": "view"}).add({"items": 1})
    assert (totals.events, totals.spent) == (2, 2)


def test_a_class_grows_at_its_end():
    class Grown(Small):
        views = Count(where={"kind": "view"})

    old = value_codec(Small).encode(Small().add({"value": 2, "kind": "view"}))
    grown = value_codec(Grown).decode(old)
    assert (grown.events, grown.spent, grown.views) == (1, 2, 0)
    assert grown.add({"kind": "view"}).views == 1


def test_the_state_is_small():
    """An array of the states: a count is a byte, and 10,000 different pages are 4 KB."""

    class Pages(Aggregates):
        events = Count()
        pages = Distinct("page", exact=False)
        times = Quantile("time", 0.99)

    pages = Pages()
    encode = value_codec(Pages).encode
    assert len(encode(pages)) == 10
    for number in range(10_000):
        pages.add({"page": f"/{number}", "time": 1 + number % 1000})
    assert len(encode(pages)) < 4096 + 8 * 350
    assert pages.pages == pytest.approx(10_000, rel=4 * 1.04 / 64)
    assert pages.times == pytest.approx(990, rel=0.011)


@pytest.mark.parametrize(
    "declare",
    [
        lambda: Quantile("x", 1.5),
        lambda: Quantiles("x"),
        lambda: Quantile("x", 0.5, error=1),
        lambda: Distinct("x", exact=False, precision=20),
        lambda: TopK("x", 0),
        lambda: TopK("x", 10, capacity=10),
        lambda: Largest("x", 0),
        lambda: Collect("x", most=0),
        lambda: type(Aggregates)("Bad", (Aggregates,), {"add": Count()}),
        lambda: type(Aggregates)("Bad", (Aggregates,), {"__annotations__": {"n": int}}),
        lambda: type(Aggregates)("Bad", (Aggregates,), {"n": Sum(3)}),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(declare):
    with pytest.raises(ConfigError):
        declare()


# --- in tables --------------------------------------------------------------------------------


class Row(msgspec.Struct, frozen=True):
    """What comes out of a window."""

    user: str
    start: int
    end: int
    events: int
    spent: float
    first_page: str | None
    last_page: str | None


KINDS = ("tumbling", "hopping", "sliding", "session", "counted")


def app_of(kind, emit="final"):
    app = App(f"totals-{kind}")
    visits = app.topic(
        "visits", contract=Contract.of("visits", Visit, key_type=str, event_time="at")
    )
    out = app.topic("out", value_type=Row)
    options = {"key_type": str, "value_type": Small}
    how = {"sink": out, "emit": emit}
    if kind == "session":
        table = app.SessionTable("totals", gap=0.01, grace=0.02, **options, **how)
    elif kind == "counted":
        table = app.Table("totals", **options).counted(3, **how)
    elif kind == "sliding":
        table = app.Table("totals", **options).sliding(0.01, grace=0.05, **how)
    elif kind == "hopping":
        table = app.Table("totals", **options).hopping(0.01, 0.005, **how)
    else:
        table = app.Table("totals", **options).tumbling(0.01, **how)
    totals = app.Table("running", **options)

    @app.agent(visits)
    async def count(stream):
        async for visit in stream:
            table.update(visit.user, visit)
            totals.update(visit.user, visit)

    return app


def visit(at, page, value=1.0):
    return Visit("u", "view", page, value, at)


@pytest.mark.parametrize(
    ("kind", "rows"),
    [
        ("tumbling", [Row("u", 0, 10, 3, 7.0, "a", "c"), Row("u", 10, 20, 1, 8.0, "d", "d")]),
        ("session", [Row("u", 1, 12, 4, 15.0, "a", "d")]),
        ("counted", [Row("u", 1, 6, 3, 7.0, "a", "c")]),
        (
            "sliding",
            [
                Row("u", 0, 10, 3, 7.0, "a", "c"),
                Row("u", 2, 12, 3, 13.0, "b", "d"),
                Row("u", 4, 14, 2, 12.0, "c", "d"),
                Row("u", 7, 17, 1, 8.0, "d", "d"),
            ],
        ),
    ],
)
def test_a_table_of_aggregates_needs_nothing_else(kind, rows):
    """Neither reduce nor merge, and the record is filled in by its fields' names."""
    with Driver(app_of(kind)) as driver:
        for each in [visit(3, "b"), visit(1, "a", 2.0), visit(6, "c", 4.0), visit(12, "d", 8.0)]:
            driver.pipe("visits", key="u", value=each)
        driver.pipe("visits", key="u", value=visit(100, "e"))
        driver.crash()
        driver.restart()
        assert [each.value for each in driver.read("out")] == rows
        ((user, running),) = driver.table("running")
        assert (user, running.events, running.spent, running.last_page) == ("u", 5, 16.0, "e")


def test_a_session_that_is_bridged_has_the_aggregates_of_both():
    with Driver(app_of("session")) as driver:
        for at, page in [(0, "a"), (20, "c"), (10, "b")]:
            driver.pipe("visits", key="u", value=visit(at, page))
        driver.close_windows()
        assert [each.value for each in driver.read("out")] == [Row("u", 0, 20, 3, 3.0, "a", "c")]


@given(
    st.lists(st.tuples(st.integers(0, 60), st.sampled_from("abc")), max_size=8), st.integers(1, 3)
)
@settings(max_examples=12, deadline=None)
def test_a_restart_at_every_kth_event_changes_nothing(events, k):
    for kind in KINDS:
        rows = []
        for crashes in (False, True):
            with Driver(app_of(kind, "updates")) as driver:
                for number, (at, page) in enumerate(events):
                    if crashes and number % k == 0:
                        driver.crash()
                        driver.restart()
                    driver.pipe("visits", key="u", value=visit(at, page))
                rows.append([each[3:] for each in driver.read("out")])
        assert rows[0] == rows[1]


def test_without_a_record_of_its_own_a_topic_gets_the_results_by_name():
    app = App("plain")
    source, out = app.topic("in"), app.topic("out")
    totals = app.Table("totals", key_type=str, value_type=Small).counted(2, sink=out)

    @app.agent(source)
    async def count(stream):
        async for key, value in stream.items():
            totals.update(key.decode(), value)

    with Driver(app) as driver:
        driver.pipe_many("in", [("k", {"value": 1, "page": "x"}, 1), ("k", {"value": 2}, 2)])
        assert [each.value for each in driver.read("out")] == [
            {"events": 2, "spent": 3, "first_page": "x", "last_page": "x"}
        ]


def test_update_without_anything_to_reduce_by_says_so():
    app = App("nothing")
    table = app.Table("t")
    with pytest.raises(ConfigError, match="reduce"):
        table.update("k", 1)
