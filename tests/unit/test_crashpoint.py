"""Crash points: off by default, armed by name, exact about which time."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

from engine import crashpoint
from engine.errors import ConfigError
from tests.shell import ROOT, environ


def test_nothing_happens_where_nothing_is_armed() -> None:
    """A point is passed, and an answer comes through."""

    async def answer() -> str:
        return "it"

    for point in crashpoint.POINTS:
        crashpoint.reach(point)
    assert asyncio.run(crashpoint.sent("end-sent", answer())) == "it"


@pytest.mark.parametrize("where", ["nowhere", "restore:", "restore:0", "restore:x"])
def test_a_point_that_is_none_is_refused(where: str) -> None:
    """The sentence names those that there are."""
    if where == "restore:":
        crashpoint.arm(where)
        crashpoint.arm("")
        return
    with pytest.raises(ConfigError, match="before-init, after-init, restore"):
        crashpoint.arm(where)


def ended_by(code: str) -> subprocess.CompletedProcess[str]:
    """Run lines of Python that go past crash points."""
    return subprocess.run(
        [sys.executable, "-c", f"import asyncio\nfrom engine import crashpoint\n{code}"],
        cwd=ROOT,
        env=environ(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_the_third_time_is_the_third_time() -> None:
    """Exit status 137, and the name as the last words."""
    done = ended_by(
        "crashpoint.arm('restore:3')\n"
        "for turn in range(5):\n"
        "    print(turn, flush=True)\n"
        "    crashpoint.reach('revoke')\n"
        "    crashpoint.reach('restore')\n"
    )
    assert done.returncode == crashpoint.EXIT_CODE
    assert done.stdout.split() == ["0", "1", "2"]
    assert done.stderr.startswith("crash point restore: this process ends here")


def test_a_request_leaves_before_the_end() -> None:
    """At a point of that kind the request is begun, and its answer is not waited for."""
    done = ended_by(
        "async def ask():\n"
        "    print('on its way', flush=True)\n"
        "    await asyncio.sleep(3600)\n"
        "crashpoint.arm('end-sent')\n"
        "asyncio.run(crashpoint.sent('end-sent', ask()))\n"
    )
    assert done.returncode == crashpoint.EXIT_CODE
    assert done.stdout == "on its way\n"


def test_every_point_is_somewhere_in_the_engine() -> None:
    """One that nothing reaches would never be tested."""
    engine = Path(crashpoint.__file__).parent
    text = "".join(path.read_text() for path in engine.rglob("*.py"))
    reached = re.findall(r'(?:reach|sent)\(\s*"([a-z-]+)"', text)
    assert sorted(reached) == sorted(crashpoint.POINTS)
