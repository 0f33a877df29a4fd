"""The command line where it needs no broker: version, agents, errors."""

import json
import socket
import subprocess
import sys

import pytest
from click.testing import CliRunner, Result

from engine.cli import cli
from tests.shell import ROOT, environ, error_of, headrace, need_tansu


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


def test_the_version_is_the_packages() -> None:
    """What --version prints."""
    assert run("--version").output == "headrace 0.1.0\n"


def test_agents_are_listed_with_what_they_read_and_write() -> None:
    """As a table, and as JSON."""
    assert "enriched-events" in run("agents").output
    rows = {row["name"]: row for row in json.loads(run("agents", "--json").output)}
    assert set(rows) == {"enrich", "sessionize", "count_events", "convert"}
    assert rows["enrich"]["topics"] == ["raw-events"]
    assert rows["enrich"]["sinks"] == ["enriched-events"]
    assert rows["enrich"]["tables"] == ["user-profiles", "unmatched"]
    assert rows["sessionize"]["sinks"] == ["user-sessions"]
    assert rows["convert"]["sinks"] == ["conversions"]
    assert len({row["part"] for row in rows.values()}) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["worker", "agents", "--broker", "nonsense"], "write it as host:port"),
        (["topics", "list", "--broker", "127.0.0.1:1"], "no Kafka broker answers at 127.0.0.1:1"),
        (["topics", "create", "t", "--broker", "127.0.0.1:1"], "no Kafka broker answers"),
        (["demo", "--broker", "127.0.0.1:1"], "no Kafka broker answers at 127.0.0.1:1"),
        (["demo", "--input", "README.md"], "README.md is of no known format"),
        (["demo", "--fresh"], "--fresh and --guarantee go with --broker"),
        (["ingest", "README.md", "--topic", "t", "--broker", "127.0.0.1:1"], "no Kafka broker"),
        (["worker", "--commit-interval", "5"], "write 7d, 12h, 30m, 10s, 500ms or forever"),
        (["worker", "--commit-interval", "90s"], "90000 ms is outside of 1 to 60000 ms"),
        (["replay", "agents", "--input", "none", "--output", "out"], "'none' does not exist"),
        (["nonsense"], "No such command 'nonsense'"),
    ],
)
def test_an_error_is_one_sentence_and_an_exit_code(arguments: list[str], message: str) -> None:
    """No traceback, and the sentence says what to do."""
    assert message in error_of(headrace(*arguments))


def test_a_port_that_is_taken_is_one_sentence() -> None:
    """With what to do about it."""
    need_tansu()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = error_of(headrace("dev", "--port", port, "--prefer", "tansu"))
    assert f"cannot have port {port} (Address already in use): choose another one" in said
    assert "--port" in said


def test_a_worker_may_open_as_many_files_as_the_system_allows() -> None:
    """A shell's soft limit would end it at some 80 tasks; the hard one is not ours to raise."""
    code = (
        "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (64, 300)); "
        "from engine.cli.running import raise_file_limit; raise_file_limit(); "
        "print(r.getrlimit(r.RLIMIT_NOFILE))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, env=environ(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "(300, 300)"
