"""The documentation's pictures: as they are described, and readable."""

import re
from html import unescape
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from docs.pictures.draw import HERE, Lane, Picture, draw, read, ticks
from engine.drawing import Box, text_px, wrapped

DOCS = HERE.parent
DESCRIBED = sorted(HERE.glob("*.toml"))
LABELS = st.text("mW il9", max_size=9).map(str.strip)
TIMES = st.integers(-5, 60)


def texts(svg: str) -> list[tuple[str, Box]]:
    """Where each text is, from its upper to its lower edge."""
    found = []
    for text in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text"):
        words, size = text.text or "", float(text.get("font-size", 0))
        x, y, width = float(text.get("x", 0)), float(text.get("y", 0)), text_px(words, size)
        x -= {"start": 0, "middle": 0.5, "end": 1}[text.get("text-anchor", "start")] * width
        found.append((words, Box(x, y - 0.75 * size, width, 0.95 * size)))
    return found


def check_readable(svg: str) -> None:
    """No text covers another, and all are inside of the picture."""
    box = [float(number) for number in re.findall(r'viewBox="0 0 (\S+) (\S+)"', svg)[0]]
    for words, at in texts(svg):
        inside = at.x >= 0 and at.y >= 0 and at.right <= box[0] and at.bottom <= box[1]
        assert inside, f"{words!r} leaves the picture"
    for (one, here), (other, there) in combinations(texts(svg), 2):
        assert not here.overlaps(there), f"{one!r} and {other!r} cover each other"


@pytest.mark.parametrize("path", DESCRIBED, ids=lambda path: path.stem)
def test_the_pictures_are_up_to_date(path: Path) -> None:
    """What is committed is what `python docs/pictures/draw.py` draws, and can be read."""
    svg = draw(read(path))
    assert path.with_suffix(".svg").read_text() == svg
    check_readable(svg)


def test_the_pages_show_and_link_what_is_there() -> None:
    """A picture or a page that is named exists, and every picture is shown somewhere."""
    named = set()
    for page in [DOCS.parent / "README.md", *DOCS.rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            if not target.startswith("http"):
                named.add((page.parent / target).resolve())
                assert (page.parent / target).exists(), f"{page}: {target}"
    assert {path.resolve() for path in HERE.glob("*.svg")} <= named


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.builds(
            Lane,
            label=LABELS,
            points=st.lists(st.tuples(TIMES, LABELS), max_size=6),
            bars=st.lists(
                st.tuples(TIMES, TIMES, LABELS).map(lambda bar: (*sorted(bar[:2]), bar[2])),
                max_size=6,
            ),
            marks=st.lists(st.tuples(TIMES, LABELS), max_size=4),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_no_label_covers_another(lanes: list[Lane]) -> None:
    """Wherever the points, bars and marks are."""
    picture = Picture("Of a lane & its <label>", "min", lanes)
    svg = draw(picture)
    check_readable(svg)
    written = [words for words, _ in texts(svg)]
    for lane in lanes:
        for *_, label in (*lane.points, *lane.bars, *lane.marks):
            assert label in written or not label
    assert unescape(picture.title) in written


def test_bars_share_a_row_only_if_they_are_apart() -> None:
    """Windows that touch stand side by side, windows that overlap above each other."""
    lane = Lane("windows", bars=[(0, 30, "a"), (15, 45, "b"), (30, 60, "c")])
    heights = {words: at.y for words, at in texts(draw(Picture("t", "min", [lane])))}
    assert heights["a"] == heights["c"] < heights["b"]


def test_what_a_picture_may_say_is_checked() -> None:
    """A misspelt key is an error, not a lane that is missing."""
    with pytest.raises(msgspec.ValidationError, match="bar"):
        msgspec.convert({"label": "x", "bar": []}, Lane)


@pytest.mark.parametrize(
    ("low", "high", "unit", "named"),
    [
        (0, 60, "min", [0, 10, 20, 30, 40, 50, 60]),
        (0, 120, "s", [0, 15, 30, 45, 60, 75, 90, 105, 120]),
        (-1, 3, "min", [-1, -0.5, 0, 0.5, 1, 1.5, 2, 2.5, 3]),
        (7, 650, "ms", [100, 200, 300, 400, 500, 600]),
    ],
)
def test_the_axis_names_round_times(low: float, high: float, unit: str, named: list[float]) -> None:
    """Few enough to read, in steps that suit the unit."""
    assert ticks(low, high, unit) == named


def test_long_labels_are_broken_between_words() -> None:
    """No line is longer than asked for, but for a word that is."""
    lines = wrapped("state of the very-long-key-that-cannot-be-broken here", 80)
    assert " ".join(lines) == "state of the very-long-key-that-cannot-be-broken here"
    assert all(text_px(line) <= 80 or " " not in line for line in lines)
