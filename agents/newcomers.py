"""What visitors do within an hour of a change of their profile: not part of the job by default.

The two streams are the job's two inputs: what visitors do, and the changes of their profiles. The
table in :mod:`agents.enrich` answers with the profile that is there when an event comes, so what a
visitor does before the accounts service has told of the sign-up stays without one. Here an event
waits for it, by event time: up to an hour and five minutes of grace. It comes out with each version
of the profile that is at most an hour away, or alone where there is none, so that nothing is lost
from the counts. For visitors who signed up long ago, the table is the right join.

    headrace worker agents.newcomers
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from agents.app import app, options
from agents.contracts import RAW_EVENTS, USER_PROFILES, EnrichedEvent, RawEvent
from agents.enrich import enriched
from engine import Contract, Stream

HOUR = 3600.0

NEWCOMER_EVENTS = app.topic(
    f"{options.prefix}newcomer-events",
    contract=Contract.of("newcomer-events", EnrichedEvent, key_type=str, key_field="user_id"),
)


@app.agent(RAW_EVENTS, sink=[NEWCOMER_EVENTS])
async def enrich_newcomers(events: Stream[RawEvent]) -> AsyncIterator[EnrichedEvent]:
    """Emit each event with the profiles written within an hour of it, or with none."""
    near = events.join(USER_PROFILES, within=HOUR, grace=300, how="left")
    async for event, profile in near:
        yield enriched(event, profile)
