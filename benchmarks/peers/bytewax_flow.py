"""Bytewax: read to the end of the topic, in memory, without recovery."""

# ruff: noqa: ANN001, ANN201, ANN202
import json
import os
from datetime import UTC, datetime, timedelta

import bytewax.operators as op
import bytewax.operators.windowing as win
from bytewax.connectors.kafka import KafkaSink, KafkaSinkMessage, KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.operators.windowing import EventClock, SessionWindower
from bytewax.testing import cluster_main

BROKERS = [os.environ["BENCH_BROKER"]]
flow = Dataflow("bench")
source = KafkaSource(BROKERS, [os.environ["BENCH_INPUT"]], tail=False)
events = op.map("decode", op.input("in", flow, source), lambda message: json.loads(message.value))


def passthrough():
    seen = 0

    def twentieth(_event):
        nonlocal seen
        seen += 1
        return KafkaSinkMessage(None, b"%d" % seen) if seen % 20 == 0 else None

    op.output("out", op.filter_map("count", events, twentieth), KafkaSink(BROKERS, "progress"))


def add(totals, event):
    at, view = event["timestamp"], event["event_type"] == "page_view"
    start, end, count, views, time = totals
    return (
        min(start, at),
        max(end, at),
        count + 1,
        views + view,
        time + event["time_on_page"],
    )


def merge(one, other):
    return (
        min(one[0], other[0]),
        max(one[1], other[1]),
        *(a + b for a, b in zip(one[2:], other[2:], strict=True)),
    )


def message(item):
    user, (_, (start, end, count, views, time)) = item
    session = {
        "user_id": user,
        "start": start,
        "end": end,
        "events": count,
        "page_views": views,
        "total_time": time,
        "bounce": views == 1,
    }
    return KafkaSinkMessage(user.encode(), json.dumps(session).encode())


def sessions():
    clock = EventClock(
        lambda event: datetime.fromtimestamp(event["timestamp"] / 1000, UTC), timedelta(minutes=5)
    )
    windower = SessionWindower(timedelta(minutes=30))
    keyed = op.key_on("by user", events, lambda event: event["user_id"])
    folded = win.fold_window(
        "sessions", keyed, clock, windower, lambda: (1 << 62, 0, 0, 0, 0.0), add, merge
    )
    op.output("out", op.map("encode", folded.down, message), KafkaSink(BROKERS, "user-sessions"))


{"passthrough": passthrough, "sessions": sessions}[os.environ["BENCH_JOB"]]()
print("READY", flush=True)
cluster_main(flow, [], 0)
