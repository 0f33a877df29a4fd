"""Draw the documentation's timelines: each ``docs/pictures/*.toml`` becomes an SVG beside it.

python docs/pictures/draw.py [NAME...]

A picture has a title, a unit of time, and lanes; a lane has a label and any of points (time,
label), bars (start, end, label) and marks (time, label), of which points are drawn on top, and bars
and marks below them in as many rows as they need. Nothing is placed by hand, no label covers
another, and the same file is always drawn the same.
"""

from __future__ import annotations

import math
import sys
import tomllib
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, count, pairwise
from pathlib import Path

import msgspec

from engine.drawing import COLORS, GREY, GRID, LINE_PX, PALE, Box, Drawing, text_px, wrapped

HERE = Path(__file__).parent
PLOT_PX = 640
EDGE = 18
GAP = 8
"""What is left free between two labels."""
LABEL_PX = 150
SMALL = 12
TOP = 52
ROW = 24
FLAG = 16
DOT = 4.5
PAD = 12
TICKS = 9
"""How many times the axis names at most."""
_SIXTIES = (1, 2, 5, 10, 15, 20, 30, 60, 120, 240, 300, 600, 900, 1800, 3600)


class Lane(msgspec.Struct, forbid_unknown_fields=True):
    """One line of the picture: an input, the state of a key, an output."""

    label: str
    points: list[tuple[float, str]] = []
    bars: list[tuple[float, float, str]] = []
    marks: list[tuple[float, str]] = []

    def times(self) -> Iterable[float]:
        """Yield every time in it."""
        yield from (time for time, _ in (*self.points, *self.marks))
        for start, end, _ in self.bars:
            yield from (start, end)


class Picture(msgspec.Struct, forbid_unknown_fields=True):
    """A timeline. All times are in ``unit``."""

    title: str
    unit: str
    lane: list[Lane]


class Item(msgspec.Struct):
    """A bar or a mark with the place that it and its label take up."""

    x: float
    end: float
    label: str
    is_mark: bool
    inside: bool
    row: int = 0

    @property
    def taken_to(self) -> float:
        """Up to where nothing else may be in its row."""
        if self.inside:
            return self.end
        return self.end + (2 * GAP + text_px(self.label, SMALL) if self.label else GAP)


class Strip(msgspec.Struct):
    """A lane that has been laid out: where everything is, in px.

    Attributes:
        label: its lines.
        points: x and label.
        flags: how high each point's label hangs; None: they all fit right above their points.
    """

    label: list[str]
    points: list[tuple[float, str]]
    flags: list[int] | None
    items: list[Item]

    @property
    def head(self) -> float:
        """The height of its points with their labels."""
        return FLAG * (1 + max(self.flags or [0])) + 16 if self.points else 0

    @property
    def height(self) -> float:
        """Its whole height."""
        rows = 1 + max((item.row for item in self.items), default=-1)
        return max(self.head + ROW * rows, LINE_PX * len(self.label)) + 2 * PAD

    @property
    def right(self) -> float:
        """How far to the right it reaches."""
        share = 0.5 if self.flags is None else 1
        ends = [x + GAP + share * text_px(label, SMALL) for x, label in self.points]
        return max([*ends, *(item.taken_to for item in self.items)], default=0)


def read(path: Path) -> Picture:
    """Read a picture; what is not as described above is a ``msgspec.ValidationError``."""
    return msgspec.convert(tomllib.loads(path.read_text()), Picture, strict=False)


def draw(picture: Picture) -> str:
    """Return a picture as SVG."""
    times = [time for lane in picture.lane for time in lane.times()] or [0.0]
    low, high = min(times), max(times)
    high = high if high > low else low + 1
    labels = [wrapped(lane.label, LABEL_PX) for lane in picture.lane]
    widths = [text_px(line) for lines in labels for line in lines]
    left = EDGE + 2 * PAD + max([*widths, text_px(picture.unit)])

    def place(time: float) -> float:
        return left + (time - low) * PLOT_PX / (high - low)

    strips = [_strip(*each, place, left) for each in zip(picture.lane, labels, strict=True)]
    title_end = EDGE + text_px(picture.title, 16) * 1.1  # it is bold
    right = max([left + PLOT_PX, title_end, *(strip.right for strip in strips)])
    bottom = TOP + sum(strip.height for strip in strips)
    made = Drawing(picture.title)
    made.text(EDGE, 28, picture.title, size=16, bold=True)
    for time in ticks(low, high, picture.unit):
        x = place(time)
        made.line(x, TOP, x, bottom + 5, stroke=GRID)
        made.text(x, bottom + 20, f"{time:g}", anchor="middle", size=SMALL, fill=GREY)
    top: float = TOP
    for number, strip in enumerate(strips):
        made.line(EDGE, top, right, top, stroke=PALE)
        base = top + strip.height / 2 - LINE_PX * len(strip.label) / 2 + 13
        for i, line in enumerate(strip.label):
            made.text(left - 2 * PAD, base + i * LINE_PX, line, anchor="end")
        _fill(made, top + PAD, strip, COLORS[number % len(COLORS)])
        top += strip.height
    made.line(left - PAD, bottom, right, bottom, stroke=GREY)
    made.text(left - 2 * PAD, bottom + 20, picture.unit, anchor="end", size=SMALL, fill=GREY)
    return made.svg(right + EDGE, bottom + 36)


def ticks(low: float, high: float, unit: str) -> list[float]:
    """Return the times that the axis names: few, and round ones."""
    tens = (base * 10.0**power for power in count(-6) for base in (1, 2, 5))
    by_sixty = unit in {"s", "min"} and high - low > TICKS
    steps = chain(_SIXTIES if by_sixty else (), tens)
    step = next(step for step in steps if (high - low) / step < TICKS)
    first = math.ceil(low / step)
    return [number * step for number in range(first, math.floor(high / step) + 1)]


def _strip(lane: Lane, label: list[str], place: Callable[[float], float], left: float) -> Strip:
    """Lay a lane out."""
    items = []
    for start, end, text in lane.bars:
        x, until = place(start), max(place(end), place(start) + 6)
        fits = text_px(text, SMALL) + 8 <= until - x
        items.append(Item(x, until, text, is_mark=False, inside=fits))
    for time, text in lane.marks:
        items.append(Item(place(time) - 1, place(time) + 1, text, is_mark=True, inside=False))
    items.sort(key=lambda item: item.x)
    _stack(items)
    points = [(place(time), text) for time, text in lane.points]
    return Strip(label, points, _flags(points, left), items)


def _stack(items: Iterable[Item]) -> None:
    """Give each item the first row that is free where it goes."""
    ends: list[float] = []
    for item in items:
        free = (row for row, end in enumerate(ends) if end <= item.x + 0.01)
        item.row = next(free, len(ends))
        ends[item.row : item.row + 1] = [item.taken_to]


def _flags(points: Sequence[tuple[float, str]], left: float) -> list[int] | None:
    """Return how high the labels hang, or None if they all fit right above their points.

    A label that hangs starts at its point and goes to the right. From the last to the first, each
    takes the lowest free level: the staff of a high one then passes no label on its way down.
    """
    order = sorted(range(len(points)), key=lambda i: points[i][0])
    widths = [text_px(label, SMALL) for _, label in points]
    spans = [(points[i][0] - widths[i] / 2, points[i][0] + widths[i] / 2) for i in order]
    before = (0.0, left - PAD - GAP)
    if all(span[1] + GAP <= following[0] for span, following in pairwise([before, *spans])):
        return None
    levels = [0] * len(points)
    starts: list[float] = []
    for i in reversed(order):
        x, end = points[i][0], points[i][0] + widths[i] + 2 * GAP
        levels[i] = next((level for level, start in enumerate(starts) if end <= start), len(starts))
        starts[levels[i] : levels[i] + 1] = [x]
    return levels


def _fill(made: Drawing, top: float, strip: Strip, colors: tuple[str, str]) -> None:
    """Draw what is in a lane."""
    strong, light = colors
    base = top + strip.head - 8
    for number, (x, label) in enumerate(strip.points):
        if strip.flags is None:
            made.text(x, base - 10, label, anchor="middle", size=SMALL)
        else:
            y = base - 10 - FLAG * strip.flags[number]
            made.line(x, base, x, y - 10, stroke=strong)
            made.text(x + 5, y, label, size=SMALL)
        made.circle(x, base, DOT, fill=strong)
    for item in strip.items:
        y = top + strip.head + ROW * item.row
        if item.is_mark:
            made.line(item.x + 1, y + 1, item.x + 1, y + ROW - 1, stroke=strong, width=2)
        else:
            bar = Box(item.x + 0.5, y + 3, item.end - item.x - 1, ROW - 6)
            made.rect(bar, fill=light, stroke=strong)
        if item.inside:
            made.text((item.x + item.end) / 2, y + 16, item.label, anchor="middle", size=SMALL)
        elif item.label:
            made.text(item.end + 5, y + 16, item.label, size=SMALL)


def main(names: Sequence[str]) -> None:
    """Draw the pictures of these names, or all."""
    for path in [HERE / f"{name}.toml" for name in names] or sorted(HERE.glob("*.toml")):
        path.with_suffix(".svg").write_text(draw(read(path)))
        print(path.with_suffix(".svg"))


if __name__ == "__main__":
    main(sys.argv[1:])
