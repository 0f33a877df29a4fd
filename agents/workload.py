"""Deterministic input for the demo and the benchmarks: the same seed, the same bytes.

Visitors arrive in visits: a visit is a few events about `gap_ms` apart, and a visitor comes back
later, so that sessions cut at 30 minutes hold one or several events. Roughly a tenth of the
visitors are on the site at any time, all interleaved, so event time advances evenly over the whole
workload.

The bound on disorder: an event is at most `MAX_LAG_MS` (60 s) older than the newest event before
it, in the whole stream and so in each partition read in order. With five minutes of grace no event
is late, neither for one-minute windows nor for sessions.

Numbers that get summed (`value`, `time_on_page`) are multiples of a quarter, so that sums are
exact whatever the order of addition.
"""

import random
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from agents.access_log import access_log_events, user_number

__all__ = [
    "INVALID_KINDS",
    "MAX_LAG_MS",
    "Record",
    "Workload",
    "access_log_events",
    "user_number",
]

Record = tuple[bytes | None, bytes | None, int]
"""Key, value and timestamp in milliseconds: a record before it has a partition."""

MAX_LAG_MS: Final = 60_000
_SITE_SHARE: Final = 10  # one visitor in so many is on the site
_TAILS: Final = 4096
_NESTING: Final = 5_000
_DAY_MS: Final = 86_400_000

_encode = msgspec.json.Encoder().encode


class Workload(msgspec.Struct, frozen=True):
    """A clickstream and the profiles of its visitors.

    Attributes:
        events: How many raw events, the invalid ones included.
        users: How many visitors, `user_0` and up.
        seed: Everything random follows from it, and so do the event ids: workloads with
            different seeds share no id.
        invalid_ratio: Share of events that break the contract, spread evenly, every kind of
            `INVALID_KINDS` in turn.
        profile_ratio: Share of visitors that have a profile.
        start_ms: No event is earlier.
        out_of_order_ratio: Share of events that lag up to `MAX_LAG_MS` behind their neighbours.
        gap_ms: Mean time between the events of a visit.
    """

    events: int
    users: int
    seed: int
    invalid_ratio: float = 0.01
    profile_ratio: float = 0.9
    start_ms: int = 1_736_121_600_000  # 2025-01-06T00:00:00Z
    out_of_order_ratio: float = 0.1
    gap_ms: int = 60_000

    def __post_init__(self) -> None:
        if self.events < 0 or self.users < 1 or self.start_ms < _DAY_MS or self.gap_ms < 1:
            raise ValueError("a workload has users, a gap, a start after 1970, no negative count")
        for name in ("invalid_ratio", "profile_ratio", "out_of_order_ratio"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share: from 0 to 1")

    @property
    def step_ms(self) -> float:
        """Event time from one event to the next."""
        return self.gap_ms / self._on_site

    @property
    def end_ms(self) -> int:
        """Every event is earlier."""
        return self.start_ms + MAX_LAG_MS + int(self.events * self.step_ms) + 1

    @property
    def invalid_events(self) -> int:
        """How many events break the contract, exactly."""
        return int(self.events * self.invalid_ratio)

    @property
    def profile_count(self) -> int:
        """How many profiles there are, exactly."""
        return int(self.users * self.profile_ratio)

    @property
    def _on_site(self) -> int:
        return max(1, self.users // _SITE_SHARE)

    def _random(self, what: str) -> random.Random:
        return random.Random(f"{what} {self.seed}")  # noqa: S311  (meant to be predictable)

    def profiles(self) -> Iterator[tuple[bytes, bytes, int]]:
        """Every profile once, older than any event."""
        rng = self._random("profiles")
        written = self.start_ms - _DAY_MS
        had = 0
        for user in range(self.users):
            have = (user + 1) * self.profile_count // self.users
            if have == had:
                continue
            had = have
            user_id = f"user_{user}"
            profile = {
                "user_id": user_id,
                "country": rng.choice(("AT", "BR", "CH", "DE", "FR", "IN", "JP", "PL", "US")),
                "tier": rng.choice(("free", "free", "free", "silver", "gold")),
                "signup_ts": written - int(rng.random() * 1000 * _DAY_MS),
            }
            yield user_id.encode(), _encode(profile), written

    def faults(self) -> Iterator[tuple[int, str]]:
        """The position and the kind of every event that breaks the contract, in order."""
        rng = self._random("faults")
        count = self.invalid_events
        for nth in range(count):
            low, high = nth * self.events // count, (nth + 1) * self.events // count
            yield rng.randrange(low, high), INVALID_KINDS[nth % len(INVALID_KINDS)]

    def raw_events(self) -> Iterator[Record]:
        """Every event in the order to produce them.

        A key of None belongs to an invalid event: the caller picks the partition.
        """
        rng = self._random("events")
        firsts, middles, lasts = (_tails(rng, mix) for mix in (_FIRST, _MIDDLE, _LAST))
        rand, users, on_site, step = rng.random, self.users, self._on_site, self.step_ms
        lagging, start = self.out_of_order_ratio, self.start_ms + MAX_LAG_MS
        visitor = [b""] * on_site
        left = [0] * on_site  # events of the visit still to come
        faults = self.faults()
        fault_at, kind = next(faults, (-1, ""))
        template = b'{"id":"ev-%d-%%09d","timestamp":%%d,"user_id":"%%b",%%b' % self.seed
        for number in range(self.events):
            slot = int(rand() * on_site)
            remaining = left[slot]
            if remaining:
                tails = middles if remaining > 1 else lasts
                left[slot] = remaining - 1
            else:
                tails = firsts
                visitor[slot] = b"user_%d" % int(rand() * users)
                left[slot] = _VISITS[int(rand() * len(_VISITS))] - 1
            user = visitor[slot]
            time = start + int((number + rand()) * step)
            if rand() < lagging:
                time -= 1 + int(rand() * MAX_LAG_MS)
            if number == fault_at:
                yield _broken(kind, number, f"ev-{self.seed}-{number:09d}", user, time)
                fault_at, kind = next(faults, (-1, ""))
                continue
            yield user, template % (number, time, user, tails[int(rand() * _TAILS)]), time


# --- valid events -----------------------------------------------------------------------------

_VISITS: Final = (1, 1, 1, 2, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24)
_FIRST: Final = ("page_view",) * 7 + ("login",) * 3
_MIDDLE: Final = ("page_view",) * 11 + ("click",) * 7 + ("purchase",) * 2
_LAST: Final = ("page_view",) * 4 + ("click",) * 2 + ("purchase",) + ("logout",) * 3
_PAGES: Final = ("/", "/search", "/products/{}", "/category/{}", "/help/{}", "/cart", "/straße/{}")
_BROWSERS: Final = ("firefox", "chrome", "safari", "edge")
_REFERRERS: Final = ("https://search.example/?q=headrace", "https://news.example/", "direct", "")


def _quarters(rng: random.Random, most: int) -> float:
    """A multiple of a quarter from 0 to `most`, both of them more often than chance would."""
    pick = rng.random()
    if pick < 0.01:  # noqa: PLR2004
        return 0 if pick < 0.005 else most  # noqa: PLR2004
    quarters = rng.randint(0, most * 4)
    return quarters // 4 if quarters % 4 == 0 else quarters / 4


def _tails(rng: random.Random, mix: tuple[str, ...]) -> list[bytes]:
    """Events from `event_type` on: rendered once, since rendering is what takes the time."""
    return [
        _encode(
            {
                "event_type": rng.choice(mix),
                "value": _quarters(rng, 10_000),
                "page": rng.choice(_PAGES).format(rng.randrange(1000)),
                "time_on_page": _quarters(rng, 300),
                "properties": {
                    "browser": rng.choice(_BROWSERS),
                    "referrer": rng.choice(_REFERRERS),
                    "campaign": f"spring-{rng.randrange(100):02d}",
                },
            }
        )[1:]
        for _ in range(_TAILS)
    ]


# --- invalid events ---------------------------------------------------------------------------

_Event = dict[str, object]


def _set(field: str, value: object) -> Callable[[_Event, int], None]:
    def change(event: _Event, _number: int) -> None:
        event[field] = value

    return change


def _drop_a_field(event: _Event, number: int) -> None:
    del event[list(event)[number % len(event)]]


def _nest(event: _Event, _number: int) -> None:
    nested = b"[" * _NESTING + b"]" * _NESTING
    event["properties"] = {"a": msgspec.Raw(nested)}


def _bad_user(event: _Event, number: int) -> None:
    event["user_id"] = ("visitor_7", "user_", "user_7x", " user_7", "USER_7", "")[number % 6]


_FIELDS: Final[dict[str, Callable[[_Event, int], None]]] = {
    "text_for_number": _set("value", "12"),
    "bool_for_number": _set("value", True),  # noqa: FBT003
    "fraction_for_whole": _set("timestamp", 1.5),
    "number_for_text": _set("page", 7),
    "number_in_properties": _set("properties", {"browser": 1}),
    "nan": _set("value", msgspec.Raw(b"NaN")),
    "missing_field": _drop_a_field,
    "value_below_range": _set("value", -1),
    "value_above_range": _set("value", 10_001),
    "bad_user_id": _bad_user,
    "null_id": _set("id", None),
    "negative_time_on_page": _set("time_on_page", -0.25),
    "unknown_event_type": _set("event_type", "teleport"),
    "deep_nesting": _nest,
}
_BYTES: Final[dict[str, Callable[[bytes], bytes]]] = {
    "not_json": lambda _: b"GET /index.html HTTP/1.1",
    "not_an_object": lambda value: b"[" + value + b"]",
    "truncated_json": lambda value: value[: len(value) // 2],
    "invalid_utf8": lambda value: value.replace(b"/products", b"/caf\xe9"),
}
INVALID_KINDS: Final = (*_BYTES, *_FIELDS, "null_key", "null_value")
"""Every way in which an event of a workload can break the contract."""


def _broken(kind: str, number: int, event_id: str, user: bytes, time: int) -> Record:
    event: _Event = {
        "id": event_id,
        "timestamp": time,
        "user_id": user.decode(),
        "event_type": "page_view",
        "value": 12.5,
        "page": f"/products/{number % 1000}",
        "time_on_page": 3.25,
        "properties": {"browser": "firefox", "referrer": "direct", "campaign": "spring-00"},
    }
    key: bytes | None = user
    if kind in _FIELDS:
        _FIELDS[kind](event, number)
        if kind == "bad_user_id":
            key = str(event["user_id"]).encode()
    value = _encode(event)
    if kind == "null_value":
        return key, None, time
    if kind == "null_key":
        return None, value, time
    return key, _BYTES[kind](value) if kind in _BYTES else value, time
