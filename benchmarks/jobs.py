"""What each job has to make of its input, worked out without any engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from zlib import crc32

import msgspec

from agents.workload import Record, Workload
from engine.partitioner import partitioner_for

OUTPUTS = {
    "passthrough": ("progress",),
    "enrich": ("enriched-events",),
    "sessions": ("user-sessions",),
    "tumbling": ("event-counts",),
    "main": ("enriched-events", "user-sessions", "event-counts"),
}
"""The topics that a job writes its results to."""
JOBS = tuple(OUTPUTS)
EVERY = 20
"""So many events of a partition make one progress record of the passthrough."""
GAP_MS = 30 * 60_000
GRACE_MS = 5 * 60_000
MINUTE_MS = 60_000
DAY_MS = 86_400_000
LAST_USER = 9_000_000
"""Users from here on have no profile; their events close every window."""

SessionRow = tuple[str, int, int, int, int, float]
"""User, start, end, events, page views, time on page."""
CountRow = tuple[str, str, int, int]
"""User, event type, start of the minute, count."""


class Event(msgspec.Struct):
    """What the recomputation needs of an event."""

    id: str
    timestamp: int
    user_id: str
    event_type: str
    time_on_page: float


class Profile(msgspec.Struct):
    """What it needs of a profile."""

    country: str
    signup_ts: int


class Expected(msgspec.Struct):
    """What must come of an input."""

    events: int = 0
    """Records in the input, the broken ones and the closing ones included."""
    valid: int = 0
    enriched: int = 0
    enriched_sum: int = 0
    sessions: Counter[SessionRow] = msgspec.field(default_factory=Counter)
    counts: Counter[CountRow] = msgspec.field(default_factory=Counter)

    def results(self, job: str) -> int:
        """How many records a job has to write; the passthrough a few less (remainders)."""
        sizes = {
            "passthrough": self.valid // EVERY,
            "enrich": self.enriched,
            "sessions": self.sessions.total(),
            "tumbling": self.counts.total(),
        }
        return sizes[job] if job in sizes else sum(sizes.values()) - sizes["passthrough"]


def closing_events(work: Workload, partitions: int, valid_before: int) -> list[Record]:
    """One event a partition, a day after all others: it closes every window before it."""
    place = partitioner_for(partitions)
    found: dict[int, bytes] = {}
    number = LAST_USER
    while len(found) < partitions:
        user = b"user_%d" % number
        found.setdefault(place[user], user)
        number += 1
    time = work.end_ms + DAY_MS
    return [
        (
            user,
            b'{"id":"last-%d-%d","timestamp":%d,"user_id":"%b","event_type":"click","value":0,'
            b'"page":"/","time_on_page":0,"properties":{}}' % (valid_before, partition, time, user),
            time,
        )
        for partition, user in sorted(found.items())
    ]


class Recomputation:
    """Takes the valid events one by one, and then says what must come of them."""

    def __init__(self, profiles: Mapping[bytes, bytes]) -> None:
        decode = msgspec.json.Decoder(Profile).decode
        self._profiles = {key.decode(): decode(value) for key, value in profiles.items()}
        self._decode = msgspec.json.Decoder(Event).decode
        self._expected = Expected()
        self._counts: Counter[tuple[str, str, int]] = Counter()
        self._by_user: dict[str, list[tuple[int, bool, float]]] = {}

    def add(self, value: bytes) -> None:
        """Take one more valid event."""
        event, expected = self._decode(value), self._expected
        expected.valid += 1
        profile = self._profiles.get(event.user_id)
        if profile is not None:
            days = max(0, event.timestamp - profile.signup_ts) // DAY_MS
            expected.enriched += 1
            expected.enriched_sum += checksum(event.id, profile.country, days)
        if int(event.user_id[5:]) >= LAST_USER:
            return  # its own windows stay open
        minute = event.timestamp - event.timestamp % MINUTE_MS
        self._counts[event.user_id, event.event_type, minute] += 1
        row = (event.timestamp, event.event_type == "page_view", event.time_on_page)
        self._by_user.setdefault(event.user_id, []).append(row)

    def result(self, events: int) -> Expected:
        """What must come of them, in an input of so many records."""
        expected = self._expected
        expected.events = events
        expected.counts = Counter((*window, count) for window, count in self._counts.items())
        expected.sessions = Counter(
            session for user, rows in self._by_user.items() for session in sessions_of(user, rows)
        )
        return expected


def checksum(event_id: str, country: str, days: int) -> int:
    """A number of an enriched event; their sum does not depend on the order."""
    return crc32(f"{event_id} {country} {days}".encode())


def sessions_of(user: str, rows: Iterable[tuple[int, bool, float]]) -> Iterator[SessionRow]:
    """Cut one user's events into sessions: a gap of exactly 30 minutes still joins."""
    start = end = events = views = 0
    total = 0.0
    for time, view, seconds in sorted(rows):
        if events and time - end > GAP_MS:
            yield (user, start, end, events, views, total)
            events = views = 0
            total = 0.0
        if not events:
            start = time
        end, events, views, total = time, events + 1, views + view, total + seconds
    if events:
        yield (user, start, end, events, views, total)
