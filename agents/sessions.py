"""One session per user and visit: 30 minutes of quiet end it, 5 minutes of grace for stragglers."""

from __future__ import annotations

from agents.app import app, options
from agents.contracts import RAW_EVENTS, USER_SESSIONS, RawEvent, SessionTotals, UserSession
from engine import Stream


def add(totals: SessionTotals, event: RawEvent) -> SessionTotals:
    """Count one more event of a session."""
    totals.events += 1
    totals.page_views += event.event_type == "page_view"
    totals.total_time += event.time_on_page
    return totals


def merge(one: SessionTotals, other: SessionTotals) -> SessionTotals:
    """Sum two sessions that an event has bridged."""
    return SessionTotals(
        one.events + other.events,
        one.page_views + other.page_views,
        one.total_time + other.total_time,
    )


sessions = app.SessionTable(
    "sessions",
    gap=30 * 60,
    grace=5 * 60,
    key_type=str,
    value_type=SessionTotals,
    reduce=add,
    merge=merge,
    sink=USER_SESSIONS,
    emit=options.sessions,
    into=UserSession.of,
)


@app.agent(RAW_EVENTS)
async def sessionize(events: Stream[RawEvent]) -> None:
    """Add each event to its user's session."""
    async for event in events:
        sessions.update(event.user_id, event)
