"""Stock Faust: enrich each event with its user's profile. Only the environment is ours."""

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


class Profile(faust.Record):
    user_id: str
    country: str
    tier: str
    signup_ts: int


class EnrichedEvent(RawEvent):
    country: str
    tier: str
    signup_ts: int
    days_since_signup: int
    is_purchase: bool


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
user_profiles = app.topic("user-profiles", key_type=str, key_serializer="raw", value_type=Profile)
enriched_events = app.topic("enriched-events", value_type=EnrichedEvent)
profiles = app.Table("profiles", value_type=Profile, options={"driver": "rocksdict"})


@app.agent(user_profiles)
async def fill(stream):
    async for profile in stream:
        profiles[profile.user_id] = profile


@app.agent(raw_events)
async def enrich(stream):
    async for event in stream:
        profile = profiles.get(event.user_id)
        if profile is not None:
            await enriched_events.send(
                key=event.user_id,
                value=EnrichedEvent(
                    **event.asdict(),
                    country=profile.country,
                    tier=profile.tier,
                    signup_ts=profile.signup_ts,
                    days_since_signup=max(0, event.timestamp - profile.signup_ts) // 86_400_000,
                    is_purchase=event.event_type == "purchase",
                ),
            )
