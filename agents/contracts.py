"""Every topic of the main job, with the contract of what it carries."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from agents.app import app, options
from engine import Contract, Match, Window

EventType = Literal["page_view", "click", "login", "purchase", "logout"]
UserId = Annotated[str, Meta(pattern=r"^user_\d+$")]


class RawEvent(Struct, frozen=True, gc=False):
    """One thing that a visitor did."""

    id: str
    timestamp: int
    user_id: UserId
    event_type: EventType
    value: Annotated[float, Meta(ge=0, le=10_000)]
    page: str
    time_on_page: Annotated[float, Meta(ge=0)]
    properties: dict[str, str]


class Profile(Struct, frozen=True, gc=False):
    """Who a visitor is."""

    user_id: UserId
    country: str
    tier: str
    signup_ts: int


class EnrichedEvent(Struct, frozen=True, gc=False):
    """An event with its visitor's profile at that moment, and what follows from the two."""

    id: str
    timestamp: int
    user_id: str
    event_type: str
    value: float
    page: str
    time_on_page: float
    properties: dict[str, str]
    country: str | None
    tier: str | None
    signup_ts: int | None
    days_since_signup: int | None
    is_purchase: bool


class SessionTotals(Struct, gc=False):
    """What is summed over a session."""

    events: int = 0
    page_views: int = 0
    total_time: float = 0.0


class UserSession(Struct, frozen=True, gc=False):
    """A visit: events of one user with no gap over 30 minutes. Times in ms."""

    user_id: str
    start: int
    end: int
    events: int
    page_views: int
    total_time: float
    bounce: bool

    @classmethod
    def of(cls, user_id: str, window: Window, totals: SessionTotals) -> UserSession:
        """Make the record of a session from its totals."""
        return cls(
            user_id,
            window.start,
            window.end,
            totals.events,
            totals.page_views,
            totals.total_time,
            totals.page_views == 1,
        )


class CountKey(Struct, frozen=True, gc=False, array_like=True, cache_hash=True):
    """What is counted."""

    user_id: str
    event_type: str


class EventCount(Struct, frozen=True, gc=False):
    """How often a user did something in one minute. Times in ms; ``end`` is exclusive."""

    user_id: str
    event_type: str
    start: int
    end: int
    count: int

    @classmethod
    def of(cls, key: CountKey, window: Window, count: int) -> EventCount:
        """Make the record of a window from its count."""
        return cls(key.user_id, key.event_type, window.start, window.end, count)


class Conversion(Struct, frozen=True, gc=False):
    """A login that has led to a purchase. Times in ms; ``pattern`` is what was looked for."""

    user_id: str
    login: int
    purchase: int
    seconds: float
    pattern: str

    @classmethod
    def of(cls, match: Match) -> Conversion:
        """Make the record of a match."""
        login, purchase = match.one("login"), match.one("purchase")
        return cls(
            login.user_id,
            login.timestamp,
            purchase.timestamp,
            (purchase.timestamp - login.timestamp) / 1000,
            match.pattern,
        )


RAW_EVENTS = app.topic(
    f"{options.prefix}raw-events",
    contract=Contract.of(
        "raw-events",
        RawEvent,
        owner="web",
        key_type=str,
        key_required=True,
        event_time="timestamp",
    ),
)

USER_PROFILES = app.topic(
    f"{options.prefix}user-profiles",
    contract=Contract.of(
        "user-profiles",
        Profile,
        owner="accounts",
        key_type=str,
        key_required=True,
        null_values=True,
    ),
    compacting=True,
)

ENRICHED_EVENTS = app.topic(
    f"{options.prefix}enriched-events",
    contract=Contract.of("enriched-events", EnrichedEvent, key_type=str, key_field="user_id"),
)

USER_SESSIONS = app.topic(
    f"{options.prefix}user-sessions",
    contract=Contract.of("user-sessions", UserSession, key_type=str, key_field="user_id"),
)

EVENT_COUNTS = app.topic(
    f"{options.prefix}event-counts",
    contract=Contract.of("event-counts", EventCount, key_type=str, key_field="user_id"),
)

CONVERSIONS = app.topic(
    f"{options.prefix}conversions",
    contract=Contract.of("conversions", Conversion, key_type=str, key_field="user_id"),
)
