"""``headrace replay``: recorded records in, the same results every time."""

import base64
import json
import time
from collections import defaultdict
from pathlib import Path

import msgspec
import pytest

from agents.workload import INVALID_KINDS, Workload
from engine.torture.oracle import DeadLetter, Expected, recompute
from tests.shell import error_of, headrace

DAY_MS = 86_400_000
MINUTE_MS = 60_000


def text(raw: bytes | None):
    """Return bytes as a script has them: text, or base64."""
    if raw is None:
        return None
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(raw).decode()}


def recorded(topic: str, records) -> list[dict]:
    """Return (key, value, timestamp) records in the form of a replay's script."""
    return [
        {"topic": topic, "key": text(key), "value": text(value), "timestamp": timestamp}
        for key, value, timestamp in records
    ]


def replay(
    folder: Path, rows: list[dict], *options: str, module: str = "agents", said: str = ""
) -> list[dict]:
    """Replay a script in a folder; return what came out of it."""
    source, target = folder / "in.jsonl", folder / "out.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = headrace("replay", module, "--input", source, "--output", target, *options, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert said in done.stderr
    return [json.loads(line) for line in target.read_text().splitlines()]


# -- the main job -----------------------------------------------------------------------------


class Replayed:
    """A workload, what a replay made of it, and what it should have made."""

    def __init__(self, folder: Path) -> None:
        work = Workload(events=2_000, users=40, seed=11, invalid_ratio=0.05)
        self.profiles = list(work.profiles())
        self.events = list(work.raw_events())
        self.script = recorded("user-profiles", self.profiles)
        self.script += recorded("raw-events", self.events)
        began = time.perf_counter()
        self.rows = replay(folder, self.script, said="2,036 records in, ")
        self.seconds = time.perf_counter() - began
        self.bytes = (folder / "out.jsonl").read_bytes()
        self.topics: dict[str, list[dict]] = defaultdict(list)
        for row in self.rows:
            self.topics[row["topic"]].append(row)

    @property
    def known(self) -> dict[str, dict]:
        """The profiles by user."""
        return {key.decode(): msgspec.json.decode(value) for key, value, _ in self.profiles}

    @property
    def expected(self) -> Expected:
        """What follows from the events, worked out the plain way."""
        return recompute([(0, *event) for event in self.events], self.known)


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> Replayed:
    """One replay for the tests that look at it."""
    return Replayed(tmp_path_factory.mktemp("replay"))


def test_the_workload_has_all_that_can_happen(replayed: Replayed) -> None:
    """Every kind of broken record, events without a profile, and both in numbers."""
    assert len(replayed.expected.dead_letters) == 100 >= 4 * len(INVALID_KINDS)
    assert replayed.expected.unmatched > 100


def test_nothing_but_results_comes_out(replayed: Replayed) -> None:
    """No input, no changelog, no mark."""
    assert set(replayed.topics) == {
        "enriched-events", "raw-events-dlq", "user-sessions", "event-counts", "conversions",
    }  # fmt: skip


def test_each_event_comes_out_with_its_profile(replayed: Replayed) -> None:
    """All fields, in the order of the input, and no event that has none."""
    wanted = []
    for row in replayed.expected.enriched:
        if row.profile is not None:
            profile = {name: row.profile[name] for name in ("country", "tier", "signup_ts")}
            age = max(0, row.event["timestamp"] - profile["signup_ts"])
            more = {
                "days_since_signup": age // DAY_MS,
                "is_purchase": row.event["event_type"] == "purchase",
            }
            wanted.append({
                "topic": "enriched-events",
                "key": row.event["user_id"],
                "value": row.event | profile | more,
                "timestamp": row.event["timestamp"],
            })  # fmt: skip
    assert replayed.topics["enriched-events"] == wanted


RULES = {  # recompute's name: the engine's
    "null_key": "key.required",
    "null_value": "value.required",
    "encoding": "json",
    "json": "json",
    "object": "value.type",
    "missing": "{}.required",
    "null": "{}.type",
    "type": "{}.type",
    "range": "{}.range",
    "pattern": "{}.pattern",
    "enum": "{}.enum",
}


def rules_of(letter: DeadLetter) -> set[str]:
    """Return what the engine may call the rule that a record breaks."""
    wanted = {RULES[letter.rule].format(letter.field)}
    if letter.rule == "json" or letter.field == "properties":
        wanted.add("properties[...].type")  # a property that is no text may be nested too deeply
    return wanted


def test_each_broken_record_is_a_dead_letter_with_its_bytes_and_its_reason(
    replayed: Replayed,
) -> None:
    """Key, value and time as they came, whatever they are; the rule and the place in headers."""
    letters, wanted = replayed.topics["raw-events-dlq"], replayed.expected.dead_letters
    assert len(letters) == len(wanted)
    for row, letter in zip(letters, wanted, strict=True):
        key, value, timestamp = replayed.events[letter.at]
        assert (row["key"], row["value"], row["timestamp"]) == (text(key), text(value), timestamp)
        headers = row["headers"]
        assert headers["__contract.rule"] in rules_of(letter), letter
        assert headers["__contract.name"] == "raw-events"
        assert headers["__streams.errors.topic"] == "raw-events"
        assert headers["__streams.errors.offset"] == str(letter.at)
        assert "window" not in row


def test_each_session_comes_out_once_with_its_window(replayed: Replayed) -> None:
    """The window is the session's own: both ends are times of events."""
    wanted = [
        {
            "topic": "user-sessions",
            "key": user,
            "value": {"user_id": user, **session._asdict()},
            "timestamp": session.end,
            "window": {"start": session.start, "end": session.end},
        }
        for user, sessions in replayed.expected.sessions.items()
        for session in sessions
    ]

    def order(row: dict):
        return row["key"], row["window"]["start"]

    assert sorted(replayed.topics["user-sessions"], key=order) == sorted(wanted, key=order)


def test_each_minutes_count_comes_out_once_with_its_window(replayed: Replayed) -> None:
    """By user and kind of event."""
    found = {}
    for row in replayed.topics["event-counts"]:
        value, window = row["value"], row["window"]
        assert (value["start"], value["end"]) == (window["start"], window["end"])
        assert window["end"] == window["start"] + MINUTE_MS
        assert row["key"] == value["user_id"]
        place = (value["user_id"], value["event_type"], window["start"])
        assert place not in found
        found[place] = value["count"]
    assert found == dict(replayed.expected.counts)


def test_each_login_that_led_to_a_purchase_comes_out_once(replayed: Replayed) -> None:
    """With its first purchase; the record's time is the purchase's."""
    wanted = [
        {
            "topic": "conversions",
            "key": each.user,
            "value": {
                "user_id": each.user,
                "login": each.login,
                "purchase": each.purchase,
                "seconds": (each.purchase - each.login) / 1000,
                "pattern": "login-to-purchase",
            },
            "timestamp": each.purchase,
        }
        for each in replayed.expected.conversions
    ]

    def order(row: dict):
        return row["key"], row["value"]["login"], row["value"]["purchase"]

    assert len(wanted) > 20
    assert sorted(replayed.topics["conversions"], key=order) == sorted(wanted, key=order)


def test_the_same_records_give_the_same_bytes(replayed: Replayed, tmp_path: Path) -> None:
    """However often, and at any pace worth waiting for."""
    replay(tmp_path, replayed.script)
    assert (tmp_path / "out.jsonl").read_bytes() == replayed.bytes
    assert replayed.seconds < 20


def event(number: int, at: int, **changes: object) -> dict:
    """Return a script's line with a valid event."""
    value = {
        "id": f"e{number}", "timestamp": at, "user_id": "user_1", "event_type": "page_view",
        "value": 1, "page": "/", "time_on_page": 2, "properties": {},
    }  # fmt: skip
    return {"topic": "raw-events", "key": "user_1", "value": value | changes, "timestamp": at}


def test_keep_open_leaves_windows_as_the_input_leaves_them(tmp_path: Path) -> None:
    """Without it the end of the input closes them."""
    script = [event(1, 1_000), event(2, 2_000)]
    assert replay(tmp_path, script, "--keep-open") == []
    out = replay(tmp_path, script)
    assert {row["topic"]: row["window"] for row in out} == {
        "user-sessions": {"start": 1_000, "end": 2_000},
        "event-counts": {"start": 0, "end": 60_000},
    }
    assert len(out) == 2


def test_headers_go_with_a_dead_letter_and_a_tombstone_takes_a_profile_away(tmp_path: Path) -> None:
    """What came with a record stays with it."""
    profile = {"user_id": "user_1", "country": "at", "tier": "gold", "signup_ts": 0}
    script = [
        {"topic": "user-profiles", "key": "user_1", "value": profile, "timestamp": 0},
        event(1, 1_000),
        {**event(2, 2_000, value=-1), "headers": {"trace": "abc"}},
        {"topic": "user-profiles", "key": "user_1", "value": None, "timestamp": 3_000},
        event(3, 4_000),
    ]
    out = replay(tmp_path, script, "--keep-open")
    assert [row["topic"] for row in out] == ["enriched-events", "raw-events-dlq"]
    assert out[1]["headers"]["trace"] == "abc"
    assert out[1]["headers"]["__contract.rule"] == "value.range"
    assert json.loads(out[1]["value"])["value"] == -1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: Input data was truncated"),
        ('{"topic": "raw-events"}', "line 2: Object missing required field `timestamp`"),
        ('{"topic": 1, "timestamp": 1}', "line 2: Expected `str`, got `int` - at `$.topic`"),
        (
            '{"topic": "raw-events", "timestamp": 1, "value": {"base64": "?"}}',
            "line 2: Only base64 data is allowed",
        ),
        (
            '{"topic": "raw-events", "timestamp": 1, "headers": {"a": 1}}',
            "line 2: a header's value must be text",
        ),
        (
            '{"topic": "raw-events", "timestamp": 1, "value": ' + "[" * 50_000 + "]" * 50_000 + "}",
            "line 2: nested too deeply",
        ),
        (
            '{"topic": "raw-events", "timestamp": 99999999999999999999}',
            "line 2: Expected `int` <= 9223372036854775807 - at `$.timestamp`",
        ),
        ('{"topic": "raw-events", "timestamp": 1, "key": "\udcff"}', "line 2: "),
    ],
)
def test_a_line_that_is_no_record_is_named(tmp_path: Path, line: str, message: str) -> None:
    """By file, number and reason, in one sentence."""
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    text = json.dumps(event(1, 1)) + "\n" + line + "\n"
    source.write_text(text, errors="surrogateescape")
    done = headrace("replay", "agents", "--input", source, "--output", target)
    assert error_of(done).startswith(f"{source}, {message}")


MIXED = """
from typing import NamedTuple

import faust
from engine import App

class Place(NamedTuple):
    shop: str
    shelf: int

class Order(faust.Record):
    item: str
    count: int

app = App("mixed")
orders = app.topic("orders", key_type=Place, value_type=Order)
notes = app.topic("notes", key_type=int, value_type=None)
blobs = app.topic("blobs", value_type=bytes)
copies = app.topic("copies", key_type=Place, value_type=Order)
echoes = app.topic("echoes", value_type=None)
bytes_out = app.topic("bytes-out", value_type=bytes)

@app.agent(orders, sink=[copies])
async def copy(stream):
    async for order in stream:
        yield order

@app.agent(notes, sink=[echoes])
async def echo(stream):
    async for note in stream:
        yield note

@app.agent(blobs, sink=[bytes_out])
async def pass_on(stream):
    async for blob in stream:
        yield blob
"""


def test_keys_and_values_of_every_kind_go_in_and_come_out(tmp_path: Path) -> None:
    """Keys of several fields, records of Faust's, any JSON, bytes; and topics nobody reads."""
    (tmp_path / "mixed.py").write_text(MIXED)
    script = [
        ("orders", ["shop", 3], {"item": "pen", "count": 2}),
        ("orders", ["shop", 4], "{broken"),
        ("notes", 7, "a string"),
        ("notes", 8, [1, 2.5, None]),
        ("notes", 9, {"big": 123456789012345678901234567890}),
        ("blobs", "k", "text"),
        ("blobs", None, {"base64": base64.b64encode(b"\xff").decode()}),
        ("elsewhere", "k", 1),
    ]
    rows = [{"topic": t, "key": k, "value": v, "timestamp": 5} for t, k, v in script]
    out = replay(
        tmp_path, rows, module="mixed:app",
        said="1 records of elsewhere left out: mixed does not read it",
    )  # fmt: skip
    order = out[0].pop("value")
    assert (order["item"], order["count"]) == ("pen", 2)
    assert out[0] == {"topic": "copies", "key": ["shop", 3], "timestamp": 5}
    assert (out[1]["topic"], out[1]["value"]) == ("orders-dlq", "{broken")
    assert [(row["topic"], row["key"], row["value"]) for row in out[2:]] == [
        ("echoes", "7", "a string"),
        ("echoes", "8", [1, 2.5, None]),
        ("echoes", "9", {"big": 123456789012345678901234567890}),
        ("bytes-out", "k", "text"),
        ("bytes-out", None, {"base64": base64.b64encode(b"\xff").decode()}),
    ]


def test_a_header_may_come_twice(tmp_path: Path) -> None:
    """Then headers are a list of pairs, in and out."""
    twice = [["trace", "a"], ["trace", "b"]]
    (letter,) = replay(tmp_path, [{**event(1, 1, value=-1), "headers": twice}])
    assert letter["headers"][:2] == twice
