"""Stock Faust: decode and count. One progress record for every 20 events, to be measured by."""

# ruff: noqa: ANN001, ANN201  (no annotations: as Faust's documentation writes agents)
import os

import faust


class RawEvent(faust.Record):
    id: str
    timestamp: int
    user_id: str
    event_type: str
    value: float
    page: str
    time_on_page: float
    properties: dict[str, str]


app = faust.App(
    os.environ["BENCH_ID"],
    broker=f"kafka://{os.environ['BENCH_BROKER']}",
    store="memory://",
    datadir=os.environ["BENCH_STATE"],
    topic_partitions=int(os.environ["BENCH_PARTITIONS"]),
    topic_replication_factor=1,
    processing_guarantee="at_least_once",
    web_enabled=False,
)
raw_events = app.topic(
    os.environ["BENCH_INPUT"], key_type=str, key_serializer="raw", value_type=RawEvent
)
progress = app.topic("progress", value_type=int)


@app.agent(raw_events, sink=[progress])
async def count(stream):
    seen = 0
    async for _ in stream:
        seen += 1
        if seen % 20 == 0:
            yield seen
