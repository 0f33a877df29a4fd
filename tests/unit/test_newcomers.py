"""The one-hour left join of events with profile changes, beside the whole main job."""

import importlib
import json
import random
import sys

import pytest

from engine.testing import Driver

HOUR_MS = 3_600_000
GRACE_MS = 300_000
START_MS = 1_736_121_600_000


@pytest.fixture
def app():
    """The app with this agent in it; what other tests import has the job as it is by default."""
    ours = {name: sys.modules.pop(name) for name in list(sys.modules) if name.startswith("agents")}
    yield importlib.import_module("agents.newcomers").app
    for name in [name for name in sys.modules if name.startswith("agents")]:
        del sys.modules[name]
    sys.modules.update(ours)


def event(number, user, ts):
    return user, {
        "id": f"ev-{number}", "timestamp": ts, "user_id": user, "event_type": "page_view",
        "value": 1, "page": "/", "time_on_page": 2, "properties": {},
    }, ts  # fmt: skip


def profile(user, ts, tier="free"):
    return user, {"user_id": user, "country": "AT", "tier": tier, "signup_ts": ts}, ts


def tell(driver, topic, record):
    driver.pipe_many(topic, [record])


def out(driver):
    rows = [json.loads(row[1]) | {"ts": row[2]} for row in driver.raw("newcomer-events")]
    return [(row["id"], row["tier"], row["ts"]) for row in rows]


def test_an_event_waits_an_hour_for_its_profile(app):
    with Driver(app) as driver:
        tell(driver, "raw-events", event(1, "user_1", START_MS))
        tell(driver, "raw-events", event(2, "user_2", START_MS))
        tell(driver, "user-profiles", profile("user_1", START_MS + HOUR_MS))
        assert out(driver) == [("ev-1", "free", START_MS + HOUR_MS)]
        tell(driver, "raw-events", event(3, "user_3", START_MS + HOUR_MS + GRACE_MS))
        assert len(out(driver)) == 1
        tell(driver, "raw-events", event(4, "user_3", START_MS + HOUR_MS + GRACE_MS + 1))
        assert out(driver)[1:] == [("ev-2", None, START_MS)]


def test_an_event_comes_with_each_profile_of_the_hour_around_it(app):
    with Driver(app) as driver:
        tell(driver, "user-profiles", profile("user_1", START_MS, "free"))
        tell(driver, "user-profiles", profile("user_1", START_MS + 10, "gold"))
        tell(driver, "user-profiles", ("user_1", None, START_MS + 20))  # the account is deleted
        tell(driver, "raw-events", event(1, "user_1", START_MS + HOUR_MS))
        tell(driver, "raw-events", event(2, "user_1", START_MS + HOUR_MS + 10))
        assert out(driver) == [
            ("ev-1", "free", START_MS + HOUR_MS),
            ("ev-1", "gold", START_MS + HOUR_MS),
            ("ev-2", "gold", START_MS + HOUR_MS + 10),
        ]


def test_the_job_beside_it_is_as_it_was(app):
    with Driver(app) as driver:
        tell(driver, "user-profiles", profile("user_1", START_MS))
        tell(driver, "raw-events", event(1, "user_1", START_MS + 2 * HOUR_MS))
        assert [row.value.tier for row in driver.read("enriched-events")] == ["free"]
        driver.close_windows()
        assert out(driver) == [("ev-1", None, START_MS + 2 * HOUR_MS)]
        assert [row.value.page_views for row in driver.read("user-sessions")] == [1]


@pytest.mark.parametrize("every", [1, 7, 50])
def test_it_is_the_join_of_the_definition_whatever_dies(app, every):
    """Within the grace nobody is late: an event has its pairs, or exactly one row without."""
    rng = random.Random(every)
    records, now = [], START_MS
    for number in range(200):
        now += rng.randrange(60_000)
        ts = now - rng.randrange(GRACE_MS)
        user = f"user_{rng.randrange(30)}"
        is_profile = rng.random() < 0.2
        topic = "user-profiles" if is_profile else "raw-events"
        tier = f"tier {number}"
        records.append((topic, profile(user, ts, tier) if is_profile else event(number, user, ts)))
    expected = set()
    for topic, (user, row, ts) in records:
        if topic == "raw-events":
            near = [
                (row["id"], other["tier"], max(ts, at))
                for name, (whose, other, at) in records
                if name == "user-profiles" and whose == user and abs(at - ts) <= HOUR_MS
            ]
            expected.update(near or [(row["id"], None, ts)])
    with Driver(app) as driver:
        for number, (topic, record) in enumerate(records):
            tell(driver, topic, record)
            if number % every == 0:
                driver.crash()
                if number % 2:
                    driver.broker.stores.clear()
                driver.restart()
        driver.close_windows()
        rows = out(driver)
    assert len(rows) == len(set(rows))
    assert set(rows) == expected
    assert {tier is None for _, tier, _ in rows} == {True, False}
