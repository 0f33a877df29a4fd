"""Stock Faust: count by user, event type and minute of the record's time."""

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
    store=os.environ.get("BENCH_STORE", "rocksdb://"),
    datadir=os.environ["BENCH_STATE"],
    topic_partitions=int(os.environ["BENCH_PARTITIONS"]),
    topic_replication_factor=1,
    processing_guarantee="at_least_once",
    web_enabled=False,
)
raw_events = app.topic(
    os.environ["BENCH_INPUT"], key_type=str, key_serializer="raw", value_type=RawEvent
)
counts = app.Table("counts", default=int, options={"driver": "rocksdict"}).tumbling(
    60, expires=3600, key_index=False
)


@app.agent(raw_events)
async def count(stream):
    async for event in stream:
        counts[f"{event.user_id}|{event.event_type}"] += 1
