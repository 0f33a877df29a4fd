"""Holds what a run of the main job left behind against a recomputation: invariants I1 to I4.

Everything here is local to a partition of the input (a key has one, and outputs have as many), so
evidence may be checked one partition at a time. What happened over time (I5 to I9) is judged in
:mod:`engine.torture.history`.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from engine.torture.observer import TABLES, Record, Seen, live_count, live_sessions
from engine.torture.oracle import (
    GRACE_MS,
    MINUTE_MS,
    SESSION_GAP_MS,
    Enriched,
    Expected,
    recompute,
)
from engine.torture.stores import Store
from engine.torture.verdict import Verdict

DAY_MS = 86_400_000
DELAY_MS = 60_000
"""So long events wait for those before them, where they are matched."""
_ORIGIN = ("__streams.errors.partition", "__streams.errors.offset")


class Job(NamedTuple):
    """The main job under test: module ``agents`` with ``HEADRACE_PREFIX``.

    Attributes:
        prefix: before the names of the app and of its topics.
        keep_unmatched: events without a profile come out too; only then is each valid event's loss
            seen by itself, else the table that counts them must tell.
    """

    prefix: str = ""
    keep_unmatched: bool = False

    @property
    def app(self) -> str:
        """The app's id, which is the consumer group."""
        return f"{self.prefix}clickstream"

    def topic(self, name: str) -> str:
        """Return a topic's full name."""
        return f"{self.prefix}{name}"

    def changelog(self, table: str) -> str:
        """Return a table's changelog."""
        return f"{self.app}-{table}-changelog"

    @property
    def inputs(self) -> list[str]:
        """The topics that the group reads."""
        return [self.topic("raw-events"), self.topic("user-profiles")]

    @property
    def written(self) -> list[str]:
        """The topics that the job's transactions write to."""
        outputs = (
            "enriched-events", "user-sessions", "event-counts", "conversions", "raw-events-dlq",
        )  # fmt: skip
        return [*map(self.topic, outputs), *map(self.changelog, TABLES)]


@dataclass
class Evidence:
    """What a run left behind: committed records of all the job's topics, and the stores.

    Attributes:
        seen: partitions may be left out, but then of all topics.
        stores: of the partitions that were seen; none: the stores are not judged.
    """

    job: Job
    seen: Seen
    stores: list[Store] = field(default_factory=list)

    def records(self, topic: str) -> list[Record]:
        """Return a topic's records, by its name without prefix, by partition and offset."""
        return self.seen.topics[self.job.topic(topic)]

    def rows(self, topic: str) -> list[dict[str, Any]]:
        """Return its values."""
        return self.seen.json(self.job.topic(topic))


def check(evidence: Evidence) -> Verdict:
    """Judge I1 to I4."""
    raw = evidence.records("raw-events")
    profiles = _profiles(evidence)
    truth = recompute(((r.partition, r.key, r.value, r.timestamp) for r in raw), profiles)
    verdict = Verdict(events=len(raw))
    _check_outputs(evidence, truth, verdict)
    _check_letters(evidence, truth, verdict)
    _check_unmatched(evidence, truth, verdict)
    times = _stream_times(raw, truth)
    _check_sessions(evidence, truth, times, verdict)
    _check_counts(evidence, truth, times, verdict)
    _check_conversions(evidence, truth, times, verdict)
    _check_stores(evidence, verdict)
    return verdict


def _profiles(evidence: Evidence) -> dict[str, dict[str, Any]]:
    latest = evidence.seen.latest(evidence.job.topic("user-profiles"))
    return {key.decode(): json.loads(value) for (_, key), value in latest.items()}


def _at(record: Record) -> str:
    return f"{record.partition}@{record.offset}"


# --- events and dead letters ------------------------------------------------------------------


def _check_outputs(evidence: Evidence, truth: Expected, verdict: Verdict) -> None:
    raw, outputs = evidence.records("raw-events"), evidence.records("enriched-events")
    keep = evidence.job.keep_unmatched
    due: dict[str, Enriched] = {
        row.event["id"]: row for row in truth.enriched if keep or row.profile is not None
    }
    wanted = Counter(row.event["id"] for row in truth.enriched if keep or row.profile is not None)
    values = [json.loads(record.value or b"{}") for record in outputs]
    found = Counter(value.get("id") for value in values)
    verdict.lost += verdict.add(
        "I1", "events without an output", [_at(raw[due[id_].at]) for id_ in wanted - found]
    )
    twice = found - wanted
    verdict.duplicated += sum(twice.values())
    verdict.add("I2", "outputs too many, by id", [str(id_) for id_ in twice.elements()])
    wrong = [
        _at(record)
        for record, value in zip(outputs, values, strict=True)
        if value.get("id") in due and value != _enriched(due[value["id"]])
    ]
    verdict.table_differences += verdict.add("I4", "enriched events that are wrong", wrong)
    verdict.add("I3", "enriched events out of order", list(_misplaced(outputs, values, truth)))


def _misplaced(
    outputs: list[Record], values: list[dict[str, Any]], truth: Expected
) -> Iterator[str]:
    """Hold the order of outputs against that of their events.

    An id may be in the input twice (a sender's retry): then the second output is the second one's.
    """
    places: dict[str, list[int]] = defaultdict(list)
    for row in truth.enriched:
        places[row.event["id"]].append(row.at)
    rows = []
    for record, value in zip(outputs, values, strict=True):
        at = places.get(value.get("id", ""))
        if at:
            rank = at.pop(0) if len(at) > 1 else at[0]
            rows.append((record, (record.partition, record.key), rank))
    yield from _disorder(rows)


def _enriched(row: Enriched) -> dict[str, Any]:
    """Return the output for an event."""
    event, profile = row.event, row.profile or {}
    signup = profile.get("signup_ts")
    names = ("id", "timestamp", "user_id", "event_type", "value", "page", "time_on_page",
             "properties")  # fmt: skip
    return {
        **{name: event[name] for name in names},
        "country": profile.get("country"),
        "tier": profile.get("tier"),
        "signup_ts": signup,
        "days_since_signup": (
            None if signup is None else max(0, event["timestamp"] - signup) // DAY_MS
        ),
        "is_purchase": event["event_type"] == "purchase",
    }


def _disorder(rows: Iterable[tuple[Record, Any, int]]) -> Iterator[str]:
    """Say which records, each with its key and rank, come after one that should follow them.

    A second copy of a record is I2's business: only first ones count.
    """
    highest: dict[Any, int] = {}
    seen: set[tuple[Any, int]] = set()
    for record, key, rank in rows:
        if (key, rank) in seen:
            continue
        seen.add((key, rank))
        if rank < highest.get(key, rank):
            yield _at(record)
        highest[key] = max(rank, highest.get(key, rank))


def _origin(record: Record) -> tuple[int, int]:
    """Return where a dead letter came from; a letter that does not say so came from nowhere."""
    partition, offset = (int(record.headers.get(name, b"-1")) for name in _ORIGIN)
    return partition, offset


def _check_letters(evidence: Evidence, truth: Expected, verdict: Verdict) -> None:
    raw, letters = evidence.records("raw-events"), evidence.records("raw-events-dlq")
    due = {(raw[at].partition, raw[at].offset): raw[at] for at, *_ in truth.dead_letters}
    found = Counter(map(_origin, letters))
    missing = [f"{partition}@{offset}" for partition, offset in due if not found[partition, offset]]
    verdict.lost += verdict.add("I1", "invalid records without a dead letter", missing)
    twice = found - Counter(due.keys())
    verdict.duplicated += sum(twice.values())
    verdict.add(
        "I2",
        "dead letters too many, by origin",
        [f"{p}@{offset}" for p, offset in twice.elements()],
    )
    altered = [
        _at(record)
        for record in letters
        if (at := due.get(_origin(record))) and (at.key, at.value) != (record.key, record.value)
    ]
    verdict.table_differences += verdict.add("I4", "dead letters that were altered", altered)
    order = [
        (record, (record.partition, _origin(record)[0], record.key), _origin(record)[1])
        for record in letters
    ]
    verdict.add("I3", "dead letters out of order", list(_disorder(order)))


def _check_unmatched(evidence: Evidence, truth: Expected, verdict: Verdict) -> None:
    """Hold the table that counts events without a profile against the truth."""
    raw, job = evidence.records("raw-events"), evidence.job
    due = Counter(raw[row.at].partition for row in truth.enriched if row.profile is None)
    found: Counter[int] = Counter()
    for (partition, _), value in evidence.seen.latest(job.changelog("unmatched")).items():
        found[partition] += msgspec.msgpack.decode(value)
    if not job.keep_unmatched:  # the count is all that is left of them
        verdict.lost += (due - found).total()
        verdict.duplicated += (found - due).total()
        _compare("I1", "events without a profile, not counted", due - found, verdict)
        _compare("I2", "events without a profile, counted twice", found - due, verdict)
    wrong = [
        f"partition {n}: {found[n]:,} for {due[n]:,}" for n in due | found if due[n] != found[n]
    ]
    verdict.table_differences += verdict.add("I4", "table unmatched", wrong)


def _compare(invariant: str, what: str, counts: Counter[int], verdict: Verdict) -> None:
    verdict.add(invariant, what, [f"{count:,} in partition {n}" for n, count in counts.items()])


# --- windows ----------------------------------------------------------------------------------


def _stream_times(raw: list[Record], truth: Expected) -> dict[str, int]:
    """Return, by user, how far stream time has got in his partition."""
    times: dict[int, int] = defaultdict(int)
    home: dict[str, int] = {}
    for row in truth.enriched:
        partition = raw[row.at].partition
        times[partition] = max(times[partition], row.event["timestamp"])
        home[row.event["user_id"]] = partition
    return {user: times[partition] for user, partition in home.items()}


def _check_sessions(
    evidence: Evidence, truth: Expected, times: dict[str, int], verdict: Verdict
) -> None:
    due: dict[bool, Counter[tuple[Any, ...]]] = {True: Counter(), False: Counter()}
    for user, sessions in truth.sessions.items():
        for s in sessions:
            closed = s.end + SESSION_GAP_MS + GRACE_MS < times[user]
            row = (user, s.start, s.end, s.events, s.page_views, s.total_time)
            due[closed][row] += 1
    emitted = [
        (s["user_id"], s["start"], s["end"], s["events"], s["page_views"], s["total_time"])
        for s in evidence.rows("user-sessions")
    ]
    live: Counter[tuple[Any, ...]] = Counter()
    for (_, key), value in evidence.seen.latest(evidence.job.changelog("sessions")).items():
        live.update(live_sessions(key, value))
    _check_windows("sessions", due, Counter(emitted), live, verdict)
    order = zip(evidence.records("user-sessions"), emitted, strict=True)
    verdict.add(
        "I3", "sessions out of order", list(_disorder((r, row[0], row[1]) for r, row in order))
    )


def _check_counts(
    evidence: Evidence, truth: Expected, times: dict[str, int], verdict: Verdict
) -> None:
    due: dict[bool, Counter[tuple[Any, ...]]] = {True: Counter(), False: Counter()}
    for (user, kind, start), count in truth.counts.items():
        closed = start + MINUTE_MS + GRACE_MS <= times[user]
        due[closed][user, kind, start, count] += 1
    emitted = [
        (row["user_id"], row["event_type"], row["start"], row["count"])
        for row in evidence.rows("event-counts")
    ]
    live: Counter[tuple[Any, ...]] = Counter()
    for (_, key), value in evidence.seen.latest(evidence.job.changelog("counts")).items():
        window, count = live_count(key, value)
        live[*window, count] += 1
    _check_windows("counts", due, Counter(emitted), live, verdict)
    order = zip(evidence.records("event-counts"), emitted, strict=True)
    verdict.add(
        "I3", "counts out of order", list(_disorder((r, row[:2], row[2]) for r, row in order))
    )


def _check_conversions(
    evidence: Evidence, truth: Expected, times: dict[str, int], verdict: Verdict
) -> None:
    """Hold what was emitted against the logins whose purchase's time has come."""
    due: Counter[tuple[Any, ...]] = Counter(
        row for row in truth.conversions if row.purchase < times[row.user] - DELAY_MS
    )
    rows = [(row["user_id"], row["login"], row["purchase"]) for row in evidence.rows("conversions")]
    emitted: Counter[tuple[Any, ...]] = Counter(rows)
    lost = [str(row) for row in (due - emitted).elements()]
    twice = [str(row) for row in (emitted - due).elements() if row in due]
    verdict.lost += verdict.add("I1", "conversions that are missing", lost)
    verdict.duplicated += verdict.add("I2", "conversions too many", twice)
    wrong = [str(row) for row in emitted if row not in due]
    wrong += [
        str(row)
        for row in evidence.rows("conversions")
        if row["seconds"] != (row["purchase"] - row["login"]) / 1000
        or row["pattern"] != "login-to-purchase"
    ]
    verdict.table_differences += verdict.add("I4", "conversions that are wrong or too early", wrong)
    order = zip(evidence.records("conversions"), rows, strict=True)
    verdict.add(
        "I3", "conversions out of order", list(_disorder((r, row[0], row[2]) for r, row in order))
    )


def _check_windows(
    table: str,
    due: dict[bool, Counter[tuple[Any, ...]]],
    emitted: Counter[tuple[Any, ...]],
    live: Counter[tuple[Any, ...]],
    verdict: Verdict,
) -> None:
    """Hold closed windows against what was emitted, open ones against the table."""
    closed, open_ = due[True], due[False]
    twice = [row for row, count in emitted.items() for _ in range(count - 1)]
    verdict.duplicated += verdict.add("I2", f"{table} emitted twice", list(map(str, twice)))
    for what, rows in (
        (f"closed {table} that were not emitted", closed - emitted),
        (f"emitted {table} that are wrong or too early", emitted.keys() - closed.keys()),
        (f"open {table} that the table has not", open_ - live),
        (f"{table} in the table that are wrong or should be gone", live - open_),
    ):
        verdict.table_differences += verdict.add("I4", what, list(map(str, rows)))


# --- stores -----------------------------------------------------------------------------------


def _check_stores(evidence: Evidence, verdict: Verdict) -> None:
    """Hold each store against its changelogs up to where it knows them, byte for byte.

    One that a worker has left behind is older, and must be right as of then: a store never holds
    what is not committed. For each partition one must be up to date.
    """
    if not evidence.stores:
        return
    for table in TABLES:
        name = evidence.job.changelog(table)
        logs: dict[int, list[Record]] = defaultdict(list)
        for record in evidence.seen.topics[name]:
            logs[record.partition].append(record)
        stores: dict[int, list[Store]] = defaultdict(list)
        for store in evidence.stores:
            if name in store.known or store.tables.get(table):
                stores[store.partition].append(store)
        for partition, log in logs.items():
            newest = max((store.known.get(name, 0) for store in stores[partition]), default=0)
            if newest <= log[-1].offset:
                where = [f"{name}[{partition}] ends at {log[-1].offset + 1}, stores at {newest}"]
                verdict.table_differences += verdict.add("I4", "no store is up to date", where)
        for partition, held in stores.items():
            _check_rows(table, name, logs[partition], held, verdict)


def _check_rows(
    table: str, name: str, log: list[Record], stores: list[Store], verdict: Verdict
) -> None:
    compacted: dict[bytes, bytes] = {}
    at = 0
    for store in sorted(stores, key=lambda store: store.known.get(name, 0)):
        while at < len(log) and log[at].offset < store.known.get(name, 0):
            key, value = log[at].key, log[at].value
            assert key is not None
            if value is None:
                compacted.pop(key, None)
            else:
                compacted[key] = value
            at += 1
        rows = store.tables.get(table, {})
        wrong = [
            repr(key)
            for key in compacted.keys() | rows.keys()
            if compacted.get(key) != rows.get(key)
        ]
        what = f"{store.path}: rows of {table} that are not the changelog's"
        verdict.table_differences += verdict.add("I4", what, wrong)
