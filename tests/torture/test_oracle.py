"""The recomputation is what the engine is judged by, so it is held to examples worked by hand."""

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.torture.oracle import SESSION_GAP_MS, DeadLetter, Session, recompute, sessions_of
from tests.visits import Visit, sessions_from_access_log

EVENT = {
    "id": "a",
    "timestamp": 1_000_000,
    "user_id": "user_1",
    "event_type": "page_view",
    "value": 1,
    "page": "/",
    "time_on_page": 2,
    "properties": {"a": "b"},
}


def raw(key=b"user_1", **changes):
    return (0, key, json.dumps(EVENT | changes).encode(), 0)


def rule(record):
    [dead] = recompute([record], {}).dead_letters
    return dead.rule, dead.field


@pytest.mark.parametrize(
    "changes",
    [
        {"value": 0},
        {"value": 10_000},
        {"value": 10_000.0},
        {"value": 0.5},
        {"time_on_page": 0},
        {"time_on_page": 1e9},
        {"timestamp": 0},
        {"properties": {}},
        {"page": "/straße"},
        {"page": ""},
        {"more": [1]},
    ],
)
def test_valid_to_the_edges(changes):
    assert recompute([raw(**changes)], {}).valid == [0]


@pytest.mark.parametrize(
    ("changes", "broken"),
    [
        ({"value": -1}, ("range", "value")),
        ({"value": 10_001}, ("range", "value")),
        ({"value": True}, ("type", "value")),
        ({"value": "1"}, ("type", "value")),
        ({"value": float("nan")}, ("json", None)),
        ({"value": float("inf")}, ("json", None)),
        ({"timestamp": 1.0}, ("type", "timestamp")),
        ({"timestamp": False}, ("type", "timestamp")),
        ({"timestamp": -1}, ("range", "timestamp")),
        ({"timestamp": 2**63}, ("range", "timestamp")),
        ({"time_on_page": -0.25}, ("range", "time_on_page")),
        ({"user_id": "user_"}, ("pattern", "user_id")),
        ({"user_id": "xuser_1"}, ("pattern", "user_id")),
        ({"user_id": None}, ("null", "user_id")),
        ({"event_type": "hover"}, ("enum", "event_type")),
        ({"properties": {"a": None}}, ("type", "properties")),
        ({"properties": []}, ("type", "properties")),
        ({"page": "\ud800"}, ("encoding", None)),
    ],
)
def test_broken_by_a_field(changes, broken):
    assert rule(raw(**changes)) == broken


@pytest.mark.parametrize(
    ("key", "value", "broken"),
    [
        (None, raw()[2], "null_key"),
        (b"user_1", None, "null_value"),
        (b"user_1", b"", "json"),
        (b"user_1", b"{", "json"),
        (b"user_1", b"[]", "object"),
        (b"user_1", b"\xff", "encoding"),
        (b"user_1", raw()[2].decode().encode("utf-16"), "encoding"),
        (b"user_1", raw()[2].replace(b": 1,", b": 1e999,"), "range"),
        (b"user_1", b'{"id":' * 50_000 + b"1" + b"}" * 50_000, "json"),
    ],
)
def test_broken_as_a_whole(key, value, broken):
    assert rule((0, key, value, 0))[0] == broken


@pytest.mark.parametrize("name", list(EVENT))
def test_every_field_is_needed(name):
    event = {key: value for key, value in EVENT.items() if key != name}
    assert rule((0, b"user_1", json.dumps(event).encode(), 0)) == ("missing", name)


def test_join_counts_and_duplicates():
    profile = {"user_id": "user_1", "country": "DE"}
    records = [
        raw(),
        raw(id="b", timestamp=1_019_999),
        raw(id="c", timestamp=1_020_000),
        raw(key=b"user_2", id="d", user_id="user_2", event_type="click"),
        raw(),
    ]
    plain = recompute(records, {"user_1": profile})
    assert plain.valid == [0, 1, 2, 3, 4]
    strict = recompute(records, {"user_1": profile}, unique_ids=True)
    assert strict.dead_letters == [DeadLetter(4, "duplicate", "id")]
    assert strict.unmatched == 1
    assert [(found.at, found.profile) for found in strict.enriched] == [
        (0, profile),
        (1, profile),
        (2, profile),
        (3, None),
    ]
    assert strict.counts == {
        ("user_1", "page_view", 960_000): 2,
        ("user_1", "page_view", 1_020_000): 1,
        ("user_2", "click", 960_000): 1,
    }


def test_the_gap_itself_still_merges():
    at = [0, SESSION_GAP_MS, 2 * SESSION_GAP_MS + 1]
    kinds = ["page_view", "click", "login"]
    events = [
        EVENT | {"timestamp": time, "event_type": kind, "time_on_page": 1.5}
        for time, kind in zip(at, kinds, strict=True)
    ]
    assert sessions_of(reversed(events)) == [
        Session(0, SESSION_GAP_MS, events=2, page_views=1, total_time=3.0, bounce=True),
        Session(at[2], at[2], events=1, page_views=0, total_time=1.5, bounce=False),
    ]


@given(st.lists(st.integers(0, 40 * SESSION_GAP_MS), min_size=1, max_size=60))
def test_sessions_part_the_events(times):
    sessions = sessions_of([EVENT | {"timestamp": time} for time in times])
    assert sum(session.events for session in sessions) == len(times)
    assert sessions[0].start == min(times)
    assert sessions[-1].end == max(times)
    for before, after in itertools.pairwise(sessions):
        assert after.start - before.end > SESSION_GAP_MS


def test_visits_of_a_log(tmp_path: Path):
    line = '{} - - [17/May/2015:{} +0000] "GET / HTTP/1.1" 200 1 "-" "-"\n'
    log = tmp_path / "access.log"
    log.write_text(
        line.format("1.2.3.4", "10:30:00")
        + line.format("1.2.3.4", "10:00:00")
        + line.format("1.2.3.4", "11:00:01")
        + line.format("::1", "10:00:00")
    )
    ten = 1_431_856_800_000
    assert sessions_from_access_log(log) == {
        "1.2.3.4": [
            Visit(ten, ten + SESSION_GAP_MS, 2),
            Visit(ten + 3_601_000, ten + 3_601_000, 1),
        ],
        "::1": [Visit(ten, ten, 1)],
    }


def test_conversions_are_first_purchases_within_an_hour():
    """Of events at one time the one that came first is the earlier; late arrivals find a place."""

    def at(timestamp, event_type, number):
        return raw(id=f"e{number}", timestamp=timestamp, event_type=event_type)

    hour = 3_600_000
    rows = [
        (5, "purchase"), (5, "login"), (7, "login"), (9, "purchase"), (9, "login"),
        (9 + hour, "purchase"), (20 + hour, "login"), (19 + 2 * hour, "purchase"),
        (8, "purchase"),
    ]  # fmt: skip
    found = recompute([at(ts, kind, n) for n, (ts, kind) in enumerate(rows)], {}).conversions
    assert [(each.login, each.purchase) for each in found] == [
        (5, 8), (7, 8), (20 + hour, 19 + 2 * hour),
    ]  # fmt: skip
