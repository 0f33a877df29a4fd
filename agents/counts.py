"""How often each user did what, minute by minute."""

from __future__ import annotations

from agents.app import app
from agents.contracts import EVENT_COUNTS, RAW_EVENTS, CountKey, EventCount, RawEvent
from engine import Stream

counts = app.Table("counts", default=int, key_type=CountKey, value_type=int).tumbling(
    60, grace=5 * 60, sink=EVENT_COUNTS, emit="final", into=EventCount.of
)


@app.agent(RAW_EVENTS)
async def count_events(events: Stream[RawEvent]) -> None:
    """Count each event in its minute."""
    async for event in events:
        counts[CountKey(event.user_id, event.event_type)] += 1
