"""What the engine should have made of an input, worked out the plain way.

One thread, plain dicts, the standard library's json, no code of the project: a result that both
agree on is not one mistake made twice. Everything is held in memory.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NoReturn

SESSION_GAP_MS = 30 * 60 * 1000
MINUTE_MS = 60 * 1000
GRACE_MS = 5 * 60 * 1000
CONVERSION_MS = 60 * 60 * 1000
MAX_INT64 = 2**63 - 1

EVENT_TYPES = ("page_view", "click", "login", "purchase", "logout")
FIELDS = (
    "id", "timestamp", "user_id", "event_type", "value", "page", "time_on_page", "properties",
)  # fmt: skip
TEXT_FIELDS = ("id", "user_id", "event_type", "page")


class Raw(NamedTuple):
    """A record of the raw topic; a plain tuple of the same four does as well."""

    partition: int
    key: bytes | None
    value: bytes | None
    timestamp: int


class DeadLetter(NamedTuple):
    """A record that breaks the contract.

    `rule` is one of: null_key, null_value, encoding, json, object, missing, null, type, range,
    pattern, enum, duplicate. `at` is the record's place in the input, and `field` names the field
    at fault, where it is one.
    """

    at: int
    rule: str
    field: str | None


class Enriched(NamedTuple):
    """A valid event beside its visitor's profile, or None when there is none."""

    at: int
    event: dict[str, Any]
    profile: dict[str, Any] | None


class Session(NamedTuple):
    """A visit: no two neighbouring events more than the gap apart."""

    start: int
    end: int
    events: int
    page_views: int
    total_time: float
    bounce: bool


class Conversion(NamedTuple):
    """A login and the first purchase of the same visitor within an hour, by their times (ms)."""

    user: str
    login: int
    purchase: int


@dataclass
class Expected:
    """Everything that follows from an input."""

    valid: list[int] = field(default_factory=list)
    """Indexes of the valid records in the input."""
    dead_letters: list[DeadLetter] = field(default_factory=list)
    enriched: list[Enriched] = field(default_factory=list)
    """Every valid event, those without a profile too, in the order of the input."""
    unmatched: int = 0
    """How many of them have no profile."""
    sessions: dict[str, list[Session]] = field(default_factory=dict)
    """By user, in the order of time."""
    counts: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    """By user, event type and the minute's start in milliseconds."""
    conversions: list[Conversion] = field(default_factory=list)
    """User by user, in the order of the logins."""


class ContractBroken(Exception):
    """Why a record is no valid event."""

    def __init__(self, rule: str, field: str | None = None) -> None:
        super().__init__(f"{rule} {field or ''}".rstrip())
        self.rule = rule
        self.field = field


def recompute(
    records: Iterable[tuple[int, bytes | None, bytes | None, int]],
    profiles: Mapping[str, dict[str, Any]],
    *,
    unique_ids: bool = False,
) -> Expected:
    """Work out what should come of the records, supposing that none is late.

    With `unique_ids`, an event whose id a valid event before it had is a dead letter as well.
    """
    expected = Expected()
    by_user: dict[str, list[dict[str, Any]]] = {}
    seen: set[str] = set()
    for index, (_, key, value, _) in enumerate(records):
        try:
            event = check(key, value)
            if unique_ids:
                _check_unseen(event["id"], seen)
        except ContractBroken as broken:
            expected.dead_letters.append(DeadLetter(index, broken.rule, broken.field))
            continue
        user = event["user_id"]
        profile = profiles.get(user)
        expected.valid.append(index)
        expected.enriched.append(Enriched(index, event, profile))
        expected.unmatched += profile is None
        minute = event["timestamp"] - event["timestamp"] % MINUTE_MS
        expected.counts[user, event["event_type"], minute] += 1
        by_user.setdefault(user, []).append(event)
    for user, events in by_user.items():
        expected.conversions += conversions_of(user, events)
    expected.sessions = {user: sessions_of(events) for user, events in by_user.items()}
    return expected


# --- the contract -----------------------------------------------------------------------------


def check(key: bytes | None, value: bytes | None) -> dict[str, Any]:
    """Return the event a record holds, or raise `ContractBroken`.

    Fields beyond the contract's are let through.
    """
    if key is None:
        raise ContractBroken("null_key")
    if value is None:
        raise ContractBroken("null_value")
    event = _parse(value)
    if not isinstance(event, dict):
        raise ContractBroken("object")
    _check_presence(event)
    for name in TEXT_FIELDS:
        if type(event[name]) is not str:
            raise ContractBroken("type", name)
    _check_timestamp(event["timestamp"])
    _check_number("value", event["value"], 10_000)
    _check_number("time_on_page", event["time_on_page"], math.inf)
    _check_properties(event["properties"])
    if not re.search(r"^user_\d+$", event["user_id"]):
        raise ContractBroken("pattern", "user_id")
    if event["event_type"] not in EVENT_TYPES:
        raise ContractBroken("enum", "event_type")
    return event


def _parse(value: bytes) -> Any:
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        raise ContractBroken("encoding") from None
    try:
        parsed = json.loads(text, parse_constant=_refuse_constant)
        json.dumps(parsed, ensure_ascii=False).encode("utf-8")  # half a surrogate pair fails
    except UnicodeEncodeError:
        raise ContractBroken("encoding") from None
    except (ValueError, RecursionError):
        raise ContractBroken("json") from None
    return parsed


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)  # NaN, Infinity, -Infinity: not JSON


def _check_presence(event: dict[str, Any]) -> None:
    for name in FIELDS:
        if name not in event:
            raise ContractBroken("missing", name)
        if event[name] is None:
            raise ContractBroken("null", name)


def _check_unseen(event_id: str, seen: set[str]) -> None:
    if event_id in seen:
        raise ContractBroken("duplicate", "id")
    seen.add(event_id)


def _check_timestamp(timestamp: Any) -> None:
    if type(timestamp) is not int:
        raise ContractBroken("type", "timestamp")
    if not 0 <= timestamp <= MAX_INT64:
        raise ContractBroken("range", "timestamp")


def _check_number(name: str, number: Any, most: float) -> None:
    if type(number) not in {int, float}:  # a bool is an int to isinstance
        raise ContractBroken("type", name)
    if number in {math.inf, -math.inf} or not 0 <= number <= most:
        raise ContractBroken("range", name)


def _check_properties(properties: Any) -> None:
    if type(properties) is not dict:
        raise ContractBroken("type", "properties")
    if any(type(text) is not str for text in properties.values()):
        raise ContractBroken("type", "properties")


# --- conversions ------------------------------------------------------------------------------


def conversions_of(user: str, events: Iterable[dict[str, Any]]) -> Iterator[Conversion]:
    """Yield each login that is followed by a purchase, of one user's events as they came.

    Of two events at one time the one that came first is the earlier one.
    """
    events = sorted(events, key=lambda event: event["timestamp"])
    purchase: int | None = None
    found = []
    for event in reversed(events):
        time = event["timestamp"]
        if event["event_type"] == "purchase":
            purchase = time
        elif purchase is None or event["event_type"] != "login":
            continue
        elif purchase - time < CONVERSION_MS:
            found.append(Conversion(user, time, purchase))
    yield from reversed(found)


# --- sessions ---------------------------------------------------------------------------------


def sessions_of(events: Iterable[dict[str, Any]]) -> list[Session]:
    """Cut one user's events into sessions; an event exactly the gap after the last still merges."""
    groups: list[list[dict[str, Any]]] = []
    for event in sorted(events, key=lambda event: event["timestamp"]):
        if groups and event["timestamp"] - groups[-1][-1]["timestamp"] <= SESSION_GAP_MS:
            groups[-1].append(event)
        else:
            groups.append([event])
    return [_session_of(group) for group in groups]


def _session_of(events: list[dict[str, Any]]) -> Session:
    page_views = sum(event["event_type"] == "page_view" for event in events)
    return Session(
        start=events[0]["timestamp"],
        end=events[-1]["timestamp"],
        events=len(events),
        page_views=page_views,
        total_time=sum(event["time_on_page"] for event in events),
        bounce=page_views == 1,
    )
