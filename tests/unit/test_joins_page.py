"""What docs/joins.md shows is what happens: its code is run, block after block."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "joins.md"


def test_the_code_of_the_page_runs_and_its_assertions_hold():
    text = PAGE.read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 4
    names = {}
    for block in blocks:
        line = text[: text.index(block)].count("\n")
        exec(compile("\n" * line + block, str(PAGE), "exec"), names)


def test_the_pictures_of_the_page_are_there():
    shown = re.findall(r"\]\((pictures/[\w.-]+)\)", PAGE.read_text())
    assert len(shown) == 2
    for name in shown:
        assert (PAGE.parent / name).is_file(), name
        assert (PAGE.parent / name).with_suffix(".toml").is_file(), name
