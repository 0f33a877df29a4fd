"""Sessions say whether they bounced, and hours at which rate: as recomputed from the events."""

import math
import random
import statistics

import pytest

import agents
from agents import bounces
from agents.contracts import RAW_EVENTS, USER_SESSIONS, RawEvent
from engine.testing import Driver
from engine.torture.oracle import sessions_of

MINUTE, HOUR = 60_000, 3_600_000


def visits(seed):
    """Some users' events over five hours, a little out of order, in visits of one to four."""
    rng = random.Random(seed)
    events = []
    for user in range(40):
        at = rng.randrange(HOUR)
        while at < 5 * HOUR:
            for _ in range(rng.choice([1, 1, 2, 4])):
                events.append(
                    RawEvent(
                        f"e{len(events)}", at, f"user_{user}",
                        rng.choice(["page_view", "page_view", "click"]), 1.0, "/",
                        float(rng.randrange(90)), {},
                    )
                )  # fmt: skip
                at += rng.randrange(1, 10 * MINUTE)
            at += rng.randrange(35 * MINUTE, 2 * HOUR)
    return sorted(events, key=lambda event: event.timestamp + rng.randrange(4 * MINUTE))


def expected_sessions(events):
    by_user = {}
    for event in events:
        by_user.setdefault(event.user_id, []).append(
            {"timestamp": event.timestamp, "event_type": event.event_type,
             "time_on_page": event.time_on_page}
        )  # fmt: skip
    return [(user, each) for user, own in by_user.items() for each in sessions_of(own)]


@pytest.mark.parametrize("seed", [1, 2])
def test_the_rate_of_each_hour_is_what_its_sessions_say(seed):
    events = visits(seed)
    expected = expected_sessions(events)
    with Driver(agents.app, partitions=3) as driver:
        driver.pipe_many(RAW_EVENTS, [(e.user_id, e, e.timestamp) for e in events])
        driver.close_windows()
        found = driver.read(USER_SESSIONS)
    assert sorted((s.value.user_id, s.value.start, s.value.bounce) for s in found) == sorted(
        (user, s.start, s.bounce) for user, s in expected
    )
    assert any(s.value.bounce for s in found)
    with Driver(bounces.app, partitions=3) as driver:
        for each in found:
            driver.pipe(bounces.SESSIONS, key=each.key, value=each.value, timestamp=each.timestamp)
            if each is found[len(found) // 2]:
                driver.crash()
                driver.restart()
        rows = driver.read(bounces.HOURS_OF_VISITS)
        hours = {each.key: each.value for each in rows}  # an hour's last record counts
    assert hours.keys() == {s.end // HOUR * HOUR for _, s in expected}
    for start, hour in hours.items():
        own = [s for _, s in expected if s.end // HOUR * HOUR == start]
        assert hour.visits == len(own)
        assert hour.bounces == sum(s.page_views == 1 for s in own)
        assert math.isclose(hour.bounce_rate, hour.bounces / hour.visits)
        assert hour.page_views == sum(s.page_views for s in own)
        assert hour.total_time == sum(s.total_time for s in own)
        low = statistics.median_low(s.total_time for s in own)
        assert hour.median_time == pytest.approx(low, rel=0.011)
