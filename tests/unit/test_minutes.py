"""The counts by minute with a 5 s watermark: what they say, what is late, and when it is said."""

import collections

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.contracts import RawEvent
from agents.minutes import EVENT_MINUTES, EVENTS, LATE_EVENTS, app
from engine.testing import Driver

START = 1_736_121_600_000  # a full minute
MINUTE = 60_000


def event(ms, user="user_1", kind="click"):
    return RawEvent(f"ev-{ms}", START + ms, user, kind, 0.0, "/", 0.0, {})


def pipe(driver, *events):
    driver.pipe_many(EVENTS, [(each.user_id, each, each.timestamp) for each in events])


def counts(driver):
    return [
        (row.value.user_id, row.value.event_type, row.value.start - START, row.value.count)
        for row in driver.read(EVENT_MINUTES)
    ]


def test_a_minute_is_counted_five_seconds_after_its_end():
    with Driver(app) as driver:
        pipe(driver, event(10), event(59_999), event(64_998), event(59_000))
        assert counts(driver) == []
        pipe(driver, event(64_999))
        assert counts(driver) == [("user_1", "click", 0, 3)]
        pipe(driver, event(59_998))
        assert [row.value.timestamp - START for row in driver.read(LATE_EVENTS)] == [59_998]


def test_users_and_kinds_are_counted_apart_and_keyed_by_user():
    with Driver(app) as driver:
        pipe(driver, event(0), event(1, kind="login"), event(2, "user_2"), event(3))
        driver.close_windows()
        rows = driver.read(EVENT_MINUTES)
        assert [(row.key, row.value.event_type, row.value.count) for row in rows] == [
            ("user_1", "click", 2), ("user_1", "login", 1), ("user_2", "click", 1)
        ]  # fmt: skip
        assert all(row.value.end - row.value.start == MINUTE for row in rows)


def test_a_silent_partition_is_counted_by_the_clock():
    with Driver(app) as driver:
        pipe(driver, event(10))
        driver.advance(60)
        assert counts(driver) == []
        driver.advance(5)
        assert counts(driver) == [("user_1", "click", 0, 1)]


def test_an_event_of_next_week_is_refused():
    with Driver(app, start_ms=START, future_limit_ms=86_400_000) as driver:
        pipe(driver, event(0))
        late = msgspec.structs.replace(event(0), timestamp=START + 7 * 86_400_000)
        pipe(driver, late, event(1))
        assert len(driver.dead_letters(EVENTS)) == 1
        assert counts(driver) == driver.read(LATE_EVENTS) == []


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(
            st.integers(-9_000, 20_000), st.sampled_from(["user_1", "user_2"]),
            st.sampled_from(["click", "login"]),
        ),
        max_size=30,
    ),
    st.integers(1, 10),
)  # fmt: skip
def test_every_event_is_counted_once_or_late(steps, every):
    """Whatever the order, and through a crash after every few events."""
    latest, seen, told, watermark = 0, [], [], -(1 << 62)
    counted, late = collections.Counter(), []
    with Driver(app) as driver:
        for number, (step, user, kind) in enumerate(steps):
            ms = max(0, latest + step)
            latest = max(latest, ms)
            each = event(ms, user, kind)
            pipe(driver, each)
            start = ms // MINUTE * MINUTE
            if watermark >= start + MINUTE - 1:
                late.append(each)
            else:
                counted[user, kind, start] += 1
            watermark = latest - 5_000
            if number % every == every - 1:
                driver.crash()
                driver.restart()
        seen += counts(driver)
        told += [row.value for row in driver.read(LATE_EVENTS)]
        assert {row[2] for row in seen} == {
            start for _, _, start in counted if watermark >= start + MINUTE - 1
        }
        driver.close_windows()
        seen += counts(driver)
    assert sorted(seen) == sorted((*group, count) for group, count in counted.items())
    assert told == late
