"""The command line where it needs no broker: help, errors, agents, replay."""

import base64
import json
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from agents.workload import Workload
from engine.cli import COMMANDS, cli
from tests.recompute import recompute

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


def headrace(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    """Run the command as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "engine.cli", *arguments],
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": str(cwd)},
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )


def test_the_version_is_the_packages() -> None:
    """What --version prints."""
    assert run("--version").output == "headrace 0.1.0\n"


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_help_with_an_example(command: str) -> None:
    """The help of a command shows how it is called."""
    result = run(command, "--help")
    assert result.exit_code == 0
    text = result.output
    if command == "topics":
        text = run("topics", "create", "--help").output
    assert "Example" in text
    assert f"headrace {command}" in text


def test_help_is_there_at_once_and_loads_no_engine() -> None:
    """Half a second at most, without Faust, aiokafka or RocksDB."""
    took = []
    for _ in range(3):
        began = time.perf_counter()
        assert headrace("--help").returncode == 0
        took.append(time.perf_counter() - began)
    assert min(took) <= 0.5
    loaded = subprocess.run(
        [sys.executable, "-c", "import engine, engine.cli, sys; print(*sorted(sys.modules))"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert not {"faust", "aiokafka", "rocksdict", "mode"} & set(loaded)


def test_agents_are_listed_with_what_they_read_and_write() -> None:
    """As a table, and as JSON."""
    assert "enriched-events" in run("agents").output
    rows = {row["name"]: row for row in json.loads(run("agents", "--json").output)}
    assert set(rows) == {"enrich", "sessionize", "count_events"}
    assert rows["enrich"]["topics"] == ["raw-events"]
    assert rows["enrich"]["sinks"] == ["enriched-events"]
    assert rows["enrich"]["tables"] == ["user-profiles", "unmatched"]
    assert rows["sessionize"]["sinks"] == ["user-sessions"]
    assert len({row["part"] for row in rows.values()}) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["agents", "no_such_module"], "there is no module 'no_such_module'"),
        (["agents", "tests.recompute"], "module tests.recompute has no 'app'"),
        (["agents", "agents/app.py"], "is a file: name the module instead"),
        (["worker", "no_such_module"], "there is no module"),
        (["worker", "agents", "--broker", "nonsense"], "write it as host:port"),
        (["topics", "list", "--broker", "127.0.0.1:1"], "no Kafka broker answers at 127.0.0.1:1"),
        (["worker", "agents", "--broker", "127.0.0.1:1"], "no Kafka broker answers"),
        (["ingest", "README.md", "--topic", "t", "--broker", "127.0.0.1:1"], "Error: "),
    ],
)
def test_an_error_is_one_sentence_and_an_exit_code(arguments: list[str], message: str) -> None:
    """No traceback, and the sentence says what to do."""
    result = headrace(*arguments)
    assert result.returncode != 0
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error:")]
    assert len(errors) == 1


# -- replay -----------------------------------------------------------------------------------


def recorded(topic: str, records) -> list[dict]:
    """Return (key, value, timestamp) records in the form of a replay's script."""
    return [
        {"topic": topic, "key": text(key), "value": text(value), "timestamp": timestamp}
        for key, value, timestamp in records
    ]


def text(raw: bytes | None):
    """Return bytes as the script takes them."""
    if raw is None:
        return None
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(raw).decode()}


def replay(tmp_path: Path, rows: list[dict], *options: str) -> list[dict]:
    """Replay a script through the main job; return what came out."""
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = headrace("replay", "agents", "--input", str(source), "--output", str(target), *options)
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in target.read_text().splitlines()]


def test_a_replay_gives_what_the_recomputation_gives(tmp_path: Path) -> None:
    """Enriched, dead letters with their bytes, sessions and counts with their windows."""
    work = Workload(events=1_500, users=40, seed=11, invalid_ratio=0.05)
    profiles, events = list(work.profiles()), list(work.raw_events())
    script = recorded("user-profiles", profiles) + recorded("raw-events", events)
    out = replay(tmp_path, script)
    known = {key.decode(): msgspec.json.decode(value) for key, value, _ in profiles}
    expected = recompute([(0, *event) for event in events], known)
    by_topic: dict[str, list[dict]] = {}
    for row in out:
        by_topic.setdefault(row["topic"], []).append(row)
    assert set(by_topic) == {"enriched-events", "raw-events-dlq", "user-sessions", "event-counts"}

    matched = [row for row in expected.enriched if row.profile]
    assert [row["value"]["id"] for row in by_topic["enriched-events"]] == [
        row.event["id"] for row in matched
    ]
    letters = by_topic["raw-events-dlq"]
    assert [row["value"] for row in letters] == [
        text(events[letter.at][1]) for letter in expected.dead_letters
    ]
    assert all(row["headers"]["__streams.errors.topic"] == "raw-events" for row in letters)
    sessions = {
        (row["key"], row["window"]["start"], row["window"]["end"], row["value"]["events"])
        for row in by_topic["user-sessions"]
    }
    assert sessions == {
        (user, s.start, s.end, s.events) for user, rows in expected.sessions.items() for s in rows
    }
    counts = {
        (row["value"]["user_id"], row["value"]["event_type"], row["window"]["start"]): row["value"][
            "count"
        ]
        for row in by_topic["event-counts"]
    }
    assert counts == dict(expected.counts)
    lengths = {r["window"]["end"] - r["window"]["start"] for r in by_topic["event-counts"]}
    assert lengths == {60_000}
    assert replay(tmp_path, script) == out


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
    ],
)
def test_a_line_that_is_no_record_is_named(tmp_path: Path, line: str, message: str) -> None:
    """By file, number and reason."""
    source = tmp_path / "in.jsonl"
    source.write_text(json.dumps(event(1, 1)) + "\n" + line + "\n")
    result = headrace(
        "replay", "agents", "--input", str(source), "--output", str(tmp_path / "out.jsonl")
    )
    assert result.returncode != 0
    assert message in result.stderr
    assert "Traceback" not in result.stderr


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
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = headrace(
        "replay", "mixed:app", "--input", str(source), "--output", str(target), cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "1 records of elsewhere left out: mixed does not read it" in done.stderr
    out = [json.loads(line) for line in target.read_text().splitlines()]
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


def test_the_first_agent_of_the_readme_does_what_it_says(tmp_path: Path) -> None:
    """Its two blocks of Python, run as they stand."""
    blocks = (ROOT / "README.md").read_text().split("```python\n")[1:]
    agent, driver = (block.partition("```")[0] for block in blocks)
    (tmp_path / "shop.py").write_text(agent)
    done = subprocess.run(
        [sys.executable, "-c", driver],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{ROOT}:{tmp_path}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    totals, letters = done.stdout.splitlines()
    assert totals.count("Delivered(") == 1
    assert "20" in totals
    assert letters.count("Delivered(") == 1
    assert "amount.range" in letters
