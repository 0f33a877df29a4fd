"""Whether what an engine wrote is what must come of its input."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import msgspec

from benchmarks.cluster import Cluster
from benchmarks.engines import Engine
from benchmarks.inputs import Input
from benchmarks.jobs import LAST_USER, CountRow, Expected, SessionRow, checksum


class Verdict(msgspec.Struct):
    """What came, beside what had to come."""

    expected: int
    came: int
    correct: bool
    notes: str = ""


class EnrichedRow(msgspec.Struct):
    """What is looked at of an enriched event."""

    id: str
    country: str
    days_since_signup: int


class SessionOut(msgspec.Struct):
    """A session as it is written."""

    user_id: str
    start: int
    end: int
    events: int
    page_views: int
    total_time: float


class CountOut(msgspec.Struct):
    """A window's count as it is written."""

    user_id: str
    event_type: str
    start: int
    count: int


def margin(job: str, partitions: int) -> int:
    """How many results less than expected are right: each partition keeps a remainder."""
    return partitions if job == "passthrough" else 0


def enriched(values: list[bytes], expected: Expected) -> Verdict:
    """Each event once, with its own profile."""
    decode = msgspec.json.Decoder(EnrichedRow).decode
    rows = [decode(value) for value in values]
    total = sum(checksum(row.id, row.country, row.days_since_signup) for row in rows)
    distinct = len({row.id for row in rows})
    right = len(rows) == distinct == expected.enriched and total == expected.enriched_sum
    notes = "" if right else f"{distinct:,} different ids"
    return Verdict(expected.enriched, len(rows), right, notes)


def compared(came: Counter[Any], expected: Counter[Any]) -> Verdict:
    """The same rows, each as often."""
    right = came == expected
    notes = ""
    if not right:
        missing, extra = (expected - came).total(), (came - expected).total()
        notes = f"{missing:,} missing, {extra:,} too many"
    return Verdict(expected.total(), came.total(), right, notes)


def sessions_of(values: list[bytes]) -> Counter[SessionRow]:
    """The sessions that were written, without the closing events' (Bytewax ends with them)."""
    decode = msgspec.json.Decoder(SessionOut).decode
    rows = [msgspec.structs.astuple(decode(value)) for value in values]
    return Counter(row for row in rows if int(row[0][5:]) < LAST_USER)


def counts_of(values: list[bytes]) -> Counter[CountRow]:
    """The counts that were written."""
    decode = msgspec.json.Decoder(CountOut).decode
    return Counter(msgspec.structs.astuple(decode(value)) for value in values)


def faust_sessions(table: dict[bytes, bytes]) -> Counter[SessionRow]:
    """The sessions that are still in the table of `faust_sessions.py`."""
    return Counter(
        (json.loads(key), *row)
        for key, value in table.items()
        for row in json.loads(value)
        if row[1] < _far(table)
    )


def faust_counts(table: dict[bytes, bytes]) -> Counter[CountRow]:
    """The counts that are in the table of `faust_tumbling.py`: it emits none."""
    rows: Counter[CountRow] = Counter()
    for key, value in table.items():
        name, (start, _) = json.loads(key)
        user, kind = name.split("|")
        rows[user, kind, int(start * 1000), json.loads(value)] += 1
    return rows


def _far(table: dict[bytes, bytes]) -> float:
    """Before this time all events are but the closing ones, which are a day later."""
    return max(row[1] for value in table.values() for row in json.loads(value)) - 3_600_000


async def check(cluster: Cluster, job: str, engine: Engine, given: Input, run: str) -> Verdict:
    """Read an engine's results and compare them with the recomputation."""
    expected = given.expected
    if job == "passthrough":
        came, due = await cluster.size("progress"), expected.results(job)
        found = Verdict(due, came, due - margin(job, cluster.partitions) <= came <= due)
    elif engine.name == "faust" and job in {"sessions", "tumbling"}:
        found = await _faust(cluster, job, expected, run)
    else:
        found = await _outputs(cluster, job, expected)
    if engine.name == "headrace":
        letters = await cluster.size("raw-events-dlq")
        found.correct &= letters == given.broken
        found.notes = f"{found.notes} {letters:,} dead letters".strip()
    return found


async def _outputs(cluster: Cluster, job: str, expected: Expected) -> Verdict:
    found = []
    if job in {"enrich", "main"}:
        found.append(enriched(await cluster.values("enriched-events"), expected))
    if job in {"sessions", "main"}:
        rows = sessions_of(await cluster.values("user-sessions"))
        found.append(compared(rows, expected.sessions))
    if job in {"tumbling", "main"}:
        windows = counts_of(await cluster.values("event-counts"))
        found.append(compared(windows, expected.counts))
    return Verdict(
        sum(each.expected for each in found),
        sum(each.came for each in found),
        all(each.correct for each in found),
        "; ".join(each.notes for each in found if each.notes),
    )


async def _faust(cluster: Cluster, job: str, expected: Expected, run: str) -> Verdict:
    """Its windows do not close by event time: the table's content counts as well."""
    if job == "tumbling":
        table = await cluster.latest(f"{run}-counts-changelog")
        rows = faust_counts(table)
        known = Counter({row: n for row, n in rows.items() if row[0] in _users(expected)})
        found = compared(known, expected.counts)
        found.notes = f"{found.notes}; none emitted, all in the table".strip("; ")
        return found
    table = await cluster.latest(f"{run}-sessions-changelog")
    emitted = sessions_of(await cluster.values("user-sessions"))
    found = compared(emitted + faust_sessions(table), expected.sessions)
    found.notes = f"{found.notes}; {emitted.total():,} emitted, the rest in the table".strip("; ")
    return found


def _users(expected: Expected) -> set[str]:
    return {row[0] for row in expected.counts}
