"""What a run says: a Markdown table, a JSON file, and a bar chart."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from math import isnan
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
    "events/s, whole drain",
    "peak RSS MB",
    "results",
    "headrace's rate ÷ this",
    "this CPU ÷ headrace's",
)
_COLORS = {"headrace": "#2563eb"}
_OTHERS = "#9ca3af"


class Row(msgspec.Struct):
    """An engine's rounds of a job, put together."""

    job: str
    engine: str
    guarantee: str
    store: str
    events: int
    rates: list[float]
    cpu_seconds_per_million: float
    whole_rate: float
    rss_mb: float
    correct: bool
    notes: str

    @property
    def rate(self) -> float:
        """The median of its rounds."""
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
            median(each.whole_events_per_second for each in group),
            max(each.rss_mb for each in group),
            all(each.correct for each in group),
            next((each.notes for each in group if not each.correct), ""),
        )
        for (job, engine), group in groups.items()
    ]


def ratio(rounds: list[Round], job: str, engine: str, what: str) -> float:
    """The median, over the rounds, of headrace's figure by the engine's in the same round."""
    ours, theirs = (
        [getattr(each, what) for each in rounds if each.job == job and each.engine == name]
        for name in ("headrace", engine)
    )
    pairs = list(zip(ours, theirs, strict=False))
    return median(one / other for one, other in pairs) if pairs else float("nan")


def table(rounds: list[Round], skipped: Mapping[str, str]) -> str:
    """A Markdown table of all jobs, and who is not in it."""
    lines = [
        f"| {' | '.join(_COLUMNS)} |",
        "|---|---|---|---|---:|---:|---:|---:|---:|---|---:|---:|",
    ]
    for row in rows_of(rounds):
        rate = ratio(rounds, row.job, row.engine, "events_per_second")
        cpu = 1 / ratio(rounds, row.job, row.engine, "cpu_seconds_per_million")
        lines.append(
            f"| {row.job} | {row.engine} | {row.guarantee} | {row.store} | {row.events:,} "
            f"| {row.rate:,.0f} ({min(row.rates):,.0f} to {max(row.rates):,.0f}) "
            f"| {row.cpu_seconds_per_million:.1f} | {row.whole_rate:,.0f} | {row.rss_mb:.0f} "
            f"| {'exact' if row.correct else f'NOT exact: {row.notes}'} "
            f"| {_times(rate)} | {_times(cpu)} |"
        )
    lines += [f"\n{name} was skipped: {reason}" for name, reason in skipped.items()]
    return "\n".join(lines)


def _times(number: float) -> str:
    return "-" if isnan(number) else f"{number:.1f}"


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
    left, width, bar, y = 250, 380, 22, 46
    parts: list[str] = []
    for row in rows:
        size = max(1.0, row.rate / top * width)
        label = f"{row.job} · {row.engine}"
        parts.append(
            f'<text x="{left - 8}" y="{y + 15}" text-anchor="end">{label}</text>'
            f'<rect x="{left}" y="{y}" width="{size:.1f}" height="{bar}" rx="2" '
            f'fill="{_COLORS.get(row.engine, _OTHERS)}"/>'
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
