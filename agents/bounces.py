"""The bounce rate, hour by hour: which share of the visits saw one page and no more.

A job of its own, which reads what the main job writes: ``headrace worker agents.bounces``. It needs
sessions that are emitted once (``HEADRACE_SESSIONS=final``, the default). Its topic is compacted:
an hour's last record is what is known of it, so no session comes too late to be counted.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from msgspec import Struct

from agents.app import options
from agents.contracts import USER_SESSIONS, UserSession
from engine import App, Contract, Stream
from engine.aggregates import Aggregates, Avg, Count, Quantile, Sum

HOUR_MS = 3_600_000
MONTH_S = 30 * 86_400

app = App(f"{options.prefix}bounces")


class Visits(Aggregates):
    """What is kept of an hour's visits."""

    visits = Count()
    bounces = Count(where={"bounce": True})
    bounce_rate = Avg("bounce")
    page_views = Sum("page_views")
    total_time = Sum("total_time")
    median_time = Quantile("total_time", 0.5)


class HourOfVisits(Struct, frozen=True):
    """The visits that ended within one hour, from ``start`` (ms). Times of visits in s."""

    start: int
    visits: int
    bounces: int
    bounce_rate: float | None
    page_views: float
    total_time: float
    median_time: float | None


SESSIONS = app.topic(USER_SESSIONS.name, contract=USER_SESSIONS.contract)
HOURS_OF_VISITS = app.topic(
    f"{options.prefix}hours-of-visits",
    contract=Contract.of("hours-of-visits", HourOfVisits, key_type=int, key_field="start"),
    compacting=True,
)

hours = app.Table("hours", key_type=int, value_type=Visits, ttl=MONTH_S)


def hour_of(session: UserSession) -> int:
    """Return when the hour began in which a session ended (ms)."""
    return session.end // HOUR_MS * HOUR_MS


@app.agent(SESSIONS, sink=[HOURS_OF_VISITS])
async def count_visits(sessions: Stream[UserSession]) -> AsyncIterator[HourOfVisits]:
    """Count each visit in the hour in which it ended."""
    async for session in sessions.group_by(hour_of, name="hour"):
        hour = hour_of(session)
        hours.update(hour, session)
        found: Visits = hours[hour]
        yield HourOfVisits(
            hour,
            found.visits,
            found.bounces,
            found.bounce_rate,
            found.page_views,
            found.total_time,
            found.median_time,
        )
