"""What the pages on windows and joins show is what happens: their code is run in order."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", ["windows", "joins", "tablejoins"])
def test_the_code_of_a_page_runs_and_its_assertions_hold(name):
    page = DOCS / f"{name}.md"
    text = page.read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 4
    names = {}
    for block in blocks:
        line = text[: text.index(block)].count("\n")
        exec(compile("\n" * line + block, str(page), "exec"), names)
