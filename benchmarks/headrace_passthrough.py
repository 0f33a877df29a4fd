"""Headrace: decode, check and count. One progress record for every 20 events of a partition."""

from __future__ import annotations

from collections.abc import AsyncIterator

from agents.contracts import RAW_EVENTS as MAIN
from engine import App, Stream

app = App("passthrough")
RAW_EVENTS = app.topic(MAIN.name, contract=MAIN.contract)
PROGRESS = app.topic("progress", value_type=int, key_type=bytes)
counted = app.Table("counted", default=int, key_type=str, value_type=int)


@app.agent(RAW_EVENTS, sink=[PROGRESS])
async def count(events: Stream) -> AsyncIterator[int]:
    async for _ in events:
        counted["events"] += 1
        seen = counted["events"]
        if seen % 20 == 0:
            yield seen
