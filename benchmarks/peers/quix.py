"""Quix Streams, exactly once: the jobs as its documentation teaches them."""

# ruff: noqa: ANN001, ANN201, ANN202
import os
from datetime import timedelta

from quixstreams import Application
from quixstreams.models import TopicConfig

DAY_MS = 86_400_000
app = Application(
    broker_address=os.environ["BENCH_BROKER"],
    consumer_group=os.environ["BENCH_ID"],
    auto_offset_reset="earliest",
    processing_guarantee="exactly-once",
    state_dir=os.environ["BENCH_STATE"],
)
CONFIG = TopicConfig(num_partitions=int(os.environ["BENCH_PARTITIONS"]), replication_factor=1)


def topic(name):
    return app.topic(name, key_deserializer="str", key_serializer="str", config=CONFIG)


def passthrough(events):
    seen = 0

    def twentieth(_event):
        nonlocal seen
        seen += 1
        return seen % 20 == 0

    events.filter(twentieth).apply(lambda _: seen).to_topic(topic("progress"))


def enrich(events):
    def merge(event, profile):
        days = max(0, event["timestamp"] - profile["signup_ts"]) // DAY_MS
        purchase = event["event_type"] == "purchase"
        return {**event, **profile, "days_since_signup": days, "is_purchase": purchase}

    profiles = app.dataframe(topic("user-profiles"))
    joined = events.join_asof(profiles, on_merge=merge, grace_ms=timedelta(days=60))
    joined.to_topic(topic("enriched-events"))


def tumbling(events):
    """One window a user and minute, with a count of each event type in it.

    Grouping by (user, type) would go through a repartition topic, where a backlog becomes late.
    """

    def add(counts, event):
        return {**counts, event["event_type"]: counts.get(event["event_type"], 0) + 1}

    def rows(window, user, _timestamp, _headers):
        return [
            {
                "user_id": user,
                "event_type": kind,
                "start": window["start"],
                "end": window["end"],
                "count": count,
            }
            for kind, count in window["value"].items()
        ]

    windows = events.tumbling_window(timedelta(minutes=1), grace_ms=timedelta(minutes=5))
    closed = windows.reduce(add, lambda event: {event["event_type"]: 1}).final("partition")
    closed.apply(rows, metadata=True, expand=True).to_topic(topic("event-counts"))


JOBS = {"passthrough": passthrough, "enrich": enrich, "tumbling": tumbling}
JOBS[os.environ["BENCH_JOB"]](app.dataframe(topic(os.environ["BENCH_INPUT"])))
app.run()
