"""The picture of the scale model: what grows with partitions and replicas, as an SVG."""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec

from benchmarks.scale import Costs, Deployment, Figures, Job, figures

PARTITIONS = (10, 20, 50, 100, 200, 500, 1_000, 2_000)
REPLICAS = (1, 4, 20, 100)
COLORS = ("#2563eb", "#0f766e", "#d97706", "#b91c1c")
WIDTH, HEIGHT, LEFT, TOP = 230, 190, 58, 70
GAP = 76

Take = Callable[[Figures], float]
PANELS: tuple[tuple[str, str, Take, tuple[float, float], float | None], ...] = (
    ("A transaction", "ms", lambda f: f.commit_ms, (1, 1_000), 100),
    ("All brokers' CPU", "cores", lambda f: f.broker_cores, (0.01, 100), 1),
    ("A worker's open files", "", lambda f: f.files, (10, 100_000), 1_024),
)
"""Title, unit, figure, range, and a line that says where it begins to hurt."""


def chart(at: Deployment, job: Job, costs: Costs | None = None) -> str:
    """Small panels, log by log: a line for each number of replicas."""
    parts = []
    for number, (title, unit, take, bounds, line) in enumerate(PANELS):
        left = LEFT + number * (WIDTH + GAP)
        parts += _frame(left, f"{title}, {unit}" if unit else title, bounds, line)
        for color, replicas in zip(COLORS, REPLICAS, strict=True):
            points = []
            for partitions in PARTITIONS:
                size = msgspec.structs.replace(at, partitions=partitions, replicas=replicas)
                if replicas <= partitions * job.parts:
                    value = take(figures(size, job, costs))
                    points.append(f"{_x(left, partitions):.1f},{_y(value, bounds):.1f}")
            parts.append(
                f'<polyline points="{" ".join(points)}" fill="none" stroke="{color}" '
                'stroke-width="2"/>'
            )
    for number, (color, replicas) in enumerate(zip(COLORS, REPLICAS, strict=True)):
        x = LEFT + number * 120
        parts.append(
            f'<rect x="{x}" y="38" width="14" height="4" fill="{color}"/>'
            f'<text x="{x + 20}" y="44">{replicas} worker{"s" if replicas > 1 else ""}</text>'
        )
    width, height = LEFT + 3 * (WIDTH + GAP), TOP + HEIGHT + 60
    title = (
        f"Coordination by partitions: commits every {at.commit_interval_ms:g} ms, "
        f"{at.events_per_second:,.0f} events/s, {at.brokers} broker"
    )
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'font-family="system-ui, sans-serif" font-size="12">\n'
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>\n'
        f'<text x="16" y="22" font-size="15" font-weight="600">{title}</text>\n{body}\n</svg>\n'
    )


def _x(left: float, partitions: float) -> float:
    first, last = math.log10(PARTITIONS[0]), math.log10(PARTITIONS[-1])
    return left + WIDTH * (math.log10(partitions) - first) / (last - first)


def _y(value: float, bounds: tuple[float, float]) -> float:
    low, high = map(math.log10, bounds)
    share = (math.log10(max(value, bounds[0])) - low) / (high - low)
    return TOP + HEIGHT * (1 - min(1.0, share))


def _frame(left: float, title: str, bounds: tuple[float, float], line: float | None) -> list[str]:
    """The axes of a panel."""
    bottom, right = TOP + HEIGHT, left + WIDTH
    parts = [
        f'<text x="{left}" y="{TOP - 8}" font-weight="600">{title}</text>',
        f'<path d="M{left} {TOP}V{bottom}H{right}" fill="none" stroke="#6b7280"/>',
    ]
    for power in range(round(math.log10(bounds[0])), round(math.log10(bounds[1])) + 1):
        y = _y(10.0**power, bounds)
        parts.append(
            f'<path d="M{left} {y:.1f}H{right}" stroke="#e5e7eb"/>'
            f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end" font-size="10">'
            f"{10.0**power:,g}</text>"
        )
    parts += [
        f'<text x="{_x(left, partitions):.1f}" y="{bottom + 16}" text-anchor="middle" '
        f'font-size="10">{partitions:,}</text>'
        for partitions in (10, 100, 1_000)
    ]
    parts.append(
        f'<text x="{left + WIDTH / 2}" y="{bottom + 34}" text-anchor="middle">partitions</text>'
    )
    if line is not None:
        y = _y(line, bounds)
        parts.append(f'<path d="M{left} {y:.1f}H{right}" stroke="#111827" stroke-dasharray="4 3"/>')
    return parts
