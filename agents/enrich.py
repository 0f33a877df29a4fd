"""Enrich each event with the profile that its user has at that moment."""

from __future__ import annotations

from collections.abc import AsyncIterator

from agents.app import app, options
from agents.contracts import (
    ENRICHED_EVENTS,
    RAW_EVENTS,
    USER_PROFILES,
    EnrichedEvent,
    Profile,
    RawEvent,
)
from engine import Stream

DAY_MS = 86_400_000

profiles = app.Table("user-profiles", source=USER_PROFILES)
unmatched = app.Table("unmatched", default=int, key_type=str, value_type=int)


@app.agent(RAW_EVENTS, sink=[ENRICHED_EVENTS])
async def enrich(events: Stream[RawEvent]) -> AsyncIterator[EnrichedEvent]:
    """Emit each event with its profile; count those that have none."""
    async for event in events:
        profile = profiles.get(event.user_id)
        if profile is None:
            unmatched["events"] += 1
            if not options.keep_unmatched:
                continue
        yield enriched(event, profile)


def enriched(event: RawEvent, profile: Profile | None) -> EnrichedEvent:
    """Put an event and its profile together."""
    return EnrichedEvent(
        event.id,
        event.timestamp,
        event.user_id,
        event.event_type,
        event.value,
        event.page,
        event.time_on_page,
        event.properties,
        profile.country if profile else None,
        profile.tier if profile else None,
        profile.signup_ts if profile else None,
        max(0, event.timestamp - profile.signup_ts) // DAY_MS if profile else None,
        event.event_type == "purchase",
    )
