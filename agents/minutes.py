"""How often each user did what, minute by minute, as soon as it can be said.

A job of its own beside the main one, which waits 5 minutes for stragglers: ``headrace worker
agents.minutes``. Its watermark lags by 5 seconds: a minute's counts are out 5 seconds of event time
after its end, and an event that comes later goes to ``late-events`` as it came. When a partition
falls silent for a minute, its windows close by the clock.

It reads the raw events itself, so what breaks their contract is in their dead letters once for
each of the two jobs.
"""

from __future__ import annotations

from agents.app import options
from agents.contracts import RAW_EVENTS, CountKey, EventCount, RawEvent
from engine import App, Contract, Stream

app = App(f"{options.prefix}minutes")

EVENTS = app.topic(RAW_EVENTS.name, contract=RAW_EVENTS.contract)
LATE_EVENTS = app.topic(f"{options.prefix}late-events", contract=RAW_EVENTS.contract)
EVENT_MINUTES = app.topic(
    f"{options.prefix}event-minutes",
    contract=Contract.of("event-minutes", EventCount, key_type=str, key_field="user_id"),
)

minutes = app.Table("minutes", default=int, key_type=CountKey, value_type=int).tumbling(
    60, delay=5, late=LATE_EVENTS, idle="1m", sink=EVENT_MINUTES, into=EventCount.of
)


@app.agent(EVENTS)
async def count_minutes(events: Stream[RawEvent]) -> None:
    """Count each event in its minute, unless it is over."""
    async for event in events:
        minutes[CountKey(event.user_id, event.event_type)] += 1
