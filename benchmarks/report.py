"""What a run says: a Markdown table, a JSON file, and a bar chart."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from benchmarks.rounds import Round

HERE = Path(__file__).parent
_LIBRARIES = ("aiokafka", "faust-streaming", "msgspec", "rocksdict", "uvloop")
_COLUMNS = (
    "job",
    "engine",
    "guarantee",
    "store",
    "events",
    "events/s (median, min to max)",
    "CPU s per million",
    "peak RSS MB",
    "wall s with start-up",
    "results",
    "times Faust's rate",
    "Faust's CPU ÷ its own",
)
_COLORS = {"headrace": "#2563eb", "faust": "#9ca3af"}


class Row(msgspec.Struct):
    """An engine's rounds of a job, put together."""

    job: str
    engine: str
    guarantee: str
    store: str
    events: int
    rates: list[float]
    cpu_seconds_per_million: float
    rss_mb: float
    wall_seconds: float
    correct: bool

    @property
    def rate(self) -> float:
        return median(self.rates)


def rows_of(rounds: list[Round]) -> list[Row]:
    """Group the rounds by job and engine, in the order in which they came."""
    groups: dict[tuple[str, str], list[Round]] = {}
    for each in rounds:
        groups.setdefault((each.job, each.engine), []).append(each)
    return [
        Row(
            job,
            engine,
            group[0].guarantee,
            group[0].store,
            group[0].events,
            [each.events_per_second for each in group],
            median(each.cpu_seconds_per_million for each in group),
            max(each.rss_mb for each in group),
            median(each.wall_seconds for each in group),
            all(each.correct for each in group),
        )
        for (job, engine), group in groups.items()
    ]


def table(rounds: list[Round]) -> str:
    """A Markdown table of all jobs."""
    rows = rows_of(rounds)
    base = {row.job: row for row in rows if row.engine == "faust"}
    lines = [
        f"| {' | '.join(_COLUMNS)} |",
        "|---|---|---|---|---:|---:|---:|---:|---:|---|---:|---:|",
    ]
    for row in rows:
        faust = base.get(row.job)
        rate = f"{row.rate / faust.rate:.1f}" if faust else "-"
        cpu = f"{faust.cpu_seconds_per_million / row.cpu_seconds_per_million:.1f}" if faust else "-"
        lines.append(
            f"| {row.job} | {row.engine} | {row.guarantee} | {row.store} | {row.events:,} "
            f"| {row.rate:,.0f} ({min(row.rates):,.0f} to {max(row.rates):,.0f}) "
            f"| {row.cpu_seconds_per_million:.1f} | {row.rss_mb:.0f} | {row.wall_seconds:.1f} "
            f"| {'exact' if row.correct else 'NOT exact'} | {rate} | {cpu} |"
        )
    return "\n".join(lines)


def summary(rounds: list[Round]) -> dict[str, Any]:
    """What ``--json`` prints."""
    jobs: dict[str, dict[str, Any]] = {}
    for row in rows_of(rounds):
        jobs.setdefault(row.job, {})[row.engine] = {
            "events_per_second": row.rate,
            "cpu_seconds_per_million": row.cpu_seconds_per_million,
            "rss_mb": row.rss_mb,
            "guarantee": row.guarantee,
        }
    return {"jobs": jobs}


def machine(broker: str) -> dict[str, Any]:
    """Where it ran, and on what."""
    model = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "cpus": os.cpu_count(),
        "cpu": model[0] if model else platform.machine(),
        "python": platform.python_version(),
        "broker": broker,
        "libraries": {name: version(name) for name in _LIBRARIES},
    }


def commit() -> str:
    """The commit of what ran; a plus sign says that something was changed since."""

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=HERE, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--", ":/agents", ":/engine", ":/tables", ":/benchmarks")
    return git("rev-parse", "--short=10", "HEAD") + ("+" if changed else "")


def chart(rounds: list[Round], caption: str) -> str:
    """Bars of events per second, one group a job, as an SVG."""
    rows = rows_of(rounds)
    top = max(row.rate for row in rows)
    left, width, bar, y = 190, 420, 22, 46
    parts: list[str] = []
    for row in rows:
        size = max(1.0, row.rate / top * width)
        label = f"{row.job} · {row.engine}"
        parts.append(
            f'<text x="{left - 8}" y="{y + 15}" text-anchor="end">{label}</text>'
            f'<rect x="{left}" y="{y}" width="{size:.1f}" height="{bar}" rx="2" '
            f'fill="{_COLORS[row.engine]}"/>'
            f'<text x="{left + size + 6:.1f}" y="{y + 15}">{row.rate:,.0f}</text>'
        )
        y += bar + 8
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 {y + 30}" '
        f'font-family="system-ui, sans-serif" font-size="13">\n'
        f'<rect width="720" height="{y + 30}" fill="#ffffff"/>\n'
        f'<text x="16" y="26" font-size="15" font-weight="600">Events per second, one process, '
        f"draining a backlog</text>\n{body}\n"
        f'<text x="16" y="{y + 18}" font-size="11" fill="#555555">{caption}</text>\n</svg>\n'
    )
