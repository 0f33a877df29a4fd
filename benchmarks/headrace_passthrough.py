"""Headrace: decode, check and count. One progress record for every 20 events of a partition."""

from __future__ import annotations

from collections.abc import AsyncIterator

from agents.contracts import RAW_EVENTS as MAIN
from agents.contracts import RawEvent
from engine import App, Stream

app = App("passthrough")
RAW_EVENTS = app.topic(MAIN.name, contract=MAIN.contract)
PROGRESS = app.topic("progress", value_type=int, key_type=bytes)


@app.agent(RAW_EVENTS, sink=[PROGRESS])
async def count(events: Stream[RawEvent]) -> AsyncIterator[int]:
    seen = 0  # as in the peers' programs: the state of this job is nothing but its position
    async for _ in events:
        seen += 1
        if seen % 20 == 0:
            yield seen
