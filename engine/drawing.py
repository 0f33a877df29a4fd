"""Pictures as SVG: shapes and text whose widths are known well enough to keep apart.

The text is set in whatever sans-serif font the reader has, so a width is an estimate that is
rather too large than too small. The background is white, for readers with a dark one.
"""

from __future__ import annotations

from html import escape
from typing import Literal, NamedTuple

FONT_PX = 13
LINE_PX = 17
INK, GREY, PALE, GRID = "#1f2937", "#6b7280", "#d1d5db", "#eceef1"
COLORS = (
    ("#1d4ed8", "#dbeafe"),
    ("#0f766e", "#d5f2ec"),
    ("#b45309", "#fdeed0"),
    ("#7e22ce", "#efe3fb"),
    ("#be123c", "#fde4e8"),
    ("#4d7c0f", "#e9f5d3"),
)
"""Pairs of a strong colour, for lines, and a light one, for what is inside of them."""
_NARROW, _WIDE = frozenset("iljtfrI.,:;|!'`()[] "), frozenset("mwMWQG@%—→≥≤")
_LATIN_LIKE = "\u2e7f"  # ideographs and their like come after it

Anchor = Literal["start", "middle", "end"]


class Box(NamedTuple):
    """A rectangle, in px."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """Its right edge."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """Its lower edge."""
        return self.y + self.height

    def overlaps(self, other: Box) -> bool:
        """Say whether the two have more in common than an edge."""
        apart = self.right <= other.x or other.right <= self.x
        return not (apart or self.bottom <= other.y or other.bottom <= self.y)


def text_px(text: str, size: float = FONT_PX) -> float:
    """Return how wide a text is, in px; no usual font sets it wider."""
    ems = 0.0
    for char in text:
        if char in _NARROW:
            ems += 0.38
        elif char in _WIDE:
            ems += 0.98
        elif char > _LATIN_LIKE:
            ems += 1.05
        else:
            ems += 0.74 if char.isupper() else 0.62
    return ems * size


def wrapped(text: str, width: float, size: float = FONT_PX) -> list[str]:
    """Break a text between words into lines of at most ``width`` px; a long word stays whole."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_px(longer, size) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


class Drawing:
    """A picture in the making. Coordinates are px, y downwards; later shapes lie on earlier ones.

    Args:
        title: what it shows: its heading, and what is read out to who cannot see it.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self._parts: list[str] = []

    def rect(
        self, box: Box, *, fill: str, stroke: str = "none", radius: float = 4, dash: str = ""
    ) -> None:
        """Draw a rectangle."""
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        self._parts.append(
            f'<rect x="{_px(box.x)}" y="{_px(box.y)}" width="{_px(box.width)}" '
            f'height="{_px(box.height)}" rx="{_px(radius)}" fill="{fill}" stroke="{stroke}"'
            f"{dashes}/>"
        )

    def circle(self, x: float, y: float, radius: float, *, fill: str) -> None:
        """Draw a filled circle."""
        self._parts.append(f'<circle cx="{_px(x)}" cy="{_px(y)}" r="{_px(radius)}" fill="{fill}"/>')

    def path(self, d: str, *, stroke: str, fill: str = "none", width: float = 1,
             dash: str = "") -> None:  # fmt: skip
        """Draw a path, in SVG's own words."""
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        self._parts.append(
            f'<path d="{d}" fill="{fill}" stroke="{stroke}" stroke-width="{_px(width)}"{dashes}/>'
        )

    def line(
        self, x: float, y: float, x2: float, y2: float, *, stroke: str, width: float = 1
    ) -> None:
        """Draw a line."""
        self.path(f"M{_px(x)} {_px(y)}L{_px(x2)} {_px(y2)}", stroke=stroke, width=width)

    def text(  # noqa: PLR0913
        self,
        x: float,
        y: float,
        text: str,
        *,
        anchor: Anchor = "start",
        size: float = FONT_PX,
        fill: str = INK,
        bold: bool = False,
    ) -> None:
        """Write a line of text; y is its base line."""
        weight = ' font-weight="600"' if bold else ""
        self._parts.append(
            f'<text x="{_px(x)}" y="{_px(y)}" text-anchor="{anchor}" font-size="{_px(size)}" '
            f'fill="{fill}"{weight}>{escape(text)}</text>'
        )

    def svg(self, width: float, height: float) -> str:
        """Return the picture as a file of that size, in px."""
        size = f"{_px(width)} {_px(height)}"
        body = "\n".join(self._parts)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" '
            f'width="{_px(width)}" height="{_px(height)}" role="img" '
            f'font-family="system-ui, sans-serif">\n<title>{escape(self.title)}</title>\n'
            f'<rect width="{_px(width)}" height="{_px(height)}" fill="#ffffff"/>\n{body}\n</svg>\n'
        )


def _px(number: float) -> str:
    """Write a length: the same everywhere, and short."""
    return f"{round(number, 1) + 0.0:g}"
