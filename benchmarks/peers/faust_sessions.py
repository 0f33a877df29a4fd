"""Stock Faust: sessions by hand, since it has none; emitted when their user comes back."""

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
user_sessions = app.topic("user-sessions")
sessions = app.Table("sessions", default=list, options={"driver": "rocksdict"})
GAP_MS = 30 * 60_000
GRACE_MS = 5 * 60_000


def add(live, event):
    """The user's live sessions with one more event in them: [start, end, events, views, time]."""
    at = event.timestamp
    start, end, events = at, at, 1
    views, total = int(event.event_type == "page_view"), event.time_on_page
    apart = []
    for session in live:
        if session[0] - GAP_MS <= at <= session[1] + GAP_MS:
            start, end = min(start, session[0]), max(end, session[1])
            events, views, total = events + session[2], views + session[3], total + session[4]
        else:
            apart.append(session)
    return sorted([*apart, [start, end, events, views, total]])


@app.agent(raw_events)
async def sessionize(stream):
    async for event in stream:
        live, closed = [], []
        for session in add(sessions[event.user_id], event):
            over = session[1] + GAP_MS + GRACE_MS < event.timestamp
            (closed if over else live).append(session)
        sessions[event.user_id] = live
        for start, end, events, views, total in closed:
            await user_sessions.send(
                key=event.user_id,
                value={
                    "user_id": event.user_id,
                    "start": start,
                    "end": end,
                    "events": events,
                    "page_views": views,
                    "total_time": total,
                    "bounce": views == 1,
                },
            )
