"""What README shows works as it stands there."""

import subprocess
import sys
from pathlib import Path

from tests.shell import ROOT, environ, headrace


def python_blocks() -> list[str]:
    """Return README's blocks of Python."""
    blocks = (ROOT / "README.md").read_text().split("```python\n")[1:]
    return [block.partition("```")[0] for block in blocks]


def test_the_first_agent_does_what_it_says(tmp_path: Path) -> None:
    """One total, one dead letter, as the comments beside the code say."""
    agent, driver = python_blocks()
    (tmp_path / "shop.py").write_text(agent)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", driver],
        cwd=tmp_path, env=environ(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    totals, letters = done.stdout.splitlines()
    assert totals.count("Delivered(") == 1
    assert "{'customer': 'ann', 'total': 20.0}" in totals
    assert letters.count("Delivered(") == 1
    assert "amount.range" in letters
    listed = headrace("agents", "shop", cwd=tmp_path).stdout.splitlines()[1]
    assert listed.split() == ["total", "orders", "customer-totals", "totals", "0"]
