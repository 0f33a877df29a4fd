"""The app that the simulation runs: every kind of state, output and failure in small.

Declared once; runs differ by their settings and by :data:`attempts`, which each run begins empty.
"""

import asyncio

import msgspec

from engine import App, Contract

BUCKETS = 5
WINDOW_MS, WINDOW_GRACE_MS = 1000, 300
LARGE_BYTES = 4000
GAP_MS, SESSION_GRACE_MS = 600, 300

app = App("sim")
slowness = 0.03
"""How long one event in a hundred takes, in seconds; a run may set it."""
attempts: set[int] = set()
"""Events that an agent has raised on once."""


class Click(msgspec.Struct):
    """What a user did."""

    id: int
    user: str
    amount: int


clicks = app.topic("clicks", contract=Contract.of("clicks", Click, key_type=str, key_required=True))
users = app.Table("users", source=app.topic("users", key_type=str, compacting=True))
totals_out = app.topic("totals-out", key_type=str)
joined_out = app.topic("joined-out", key_type=str)
chunks_out = app.topic("chunks-out", key_type=str)
flaky_out = app.topic("flaky-out", key_type=str)
large_out = app.topic("large-out", key_type=str)
counts_out = app.topic("counts-out", key_type=str)
late_out = app.topic("late-out", contract=clicks.contract)
visits_out = app.topic("visits-out", key_type=str)
buckets_out = app.topic("buckets-out", key_type=int)

totals = app.Table("totals", default=int, key_type=str)
buckets = app.Table("buckets", default=int, key_type=int)
counts = app.Table("counts", default=int, key_type=str).tumbling(
    WINDOW_MS / 1000, grace=WINDOW_GRACE_MS / 1000, sink=counts_out, late=late_out,
    into=lambda key, window, count: [key, window.start, count],
)  # fmt: skip
visits = app.SessionTable(
    "visits", gap=GAP_MS / 1000, grace=SESSION_GRACE_MS / 1000, key_type=str, initial=int,
    reduce=lambda count, _: count + 1, merge=lambda one, other: one + other, sink=visits_out,
    into=lambda key, window, count: [key, window.start, window.end, count],
)  # fmt: skip


@app.agent(clicks, sink=[totals_out])
async def total(stream):
    async for click in stream:
        totals[click.user] += click.amount
        yield [click.id, click.user, totals[click.user]]


@app.agent(clicks)
async def windows(stream):
    async for click in stream:
        counts[click.user] += 1
        visits.update(click.user, click)


@app.agent(clicks, sink=[joined_out])
async def join(stream):
    async for click, user in stream.join(users):
        if click.id % 11 == 0:
            await asyncio.sleep(0.03 if click.id % 97 else slowness)
        yield [click.id, click.user, user["v"]]


async def ask(click):
    """Wait for something, and not equally long."""
    await asyncio.sleep(click.id * 7 % 5 / 1000)
    return click


@app.agent(clicks, sink=[chunks_out])
async def chunk(stream):
    async for taken in stream.map_async(ask, concurrency=3).take(3, within=0.4):
        yield [click.id for click in taken]


@app.agent(clicks, sink=[flaky_out], retries=1)
async def flaky(stream):
    async for number in stream.map_async(bear, concurrency=4):
        yield number


async def bear(click):
    """Return an event's id, or raise; some take longer than those behind them."""
    await asyncio.sleep(click.id * 5 % 7 / 1000)
    if is_poison(click.id):
        raise ZeroDivisionError
    if click.id % 23 == 5 and click.id not in attempts:
        attempts.add(click.id)
        raise LookupError
    return click.id


def is_poison(number):
    """Say whether the agent can never bear an event."""
    return number % 61 == 7


@app.agent(clicks, sink=[large_out])
async def large(stream):
    async for click in stream:
        yield [click.id, "x" * LARGE_BYTES if is_large(click.id) else ""]


def is_large(number):
    """Say whether an event's result is so large that some brokers do not take it."""
    return number % 101 == 11


@app.agent(clicks, sink=[buckets_out])
async def move(stream):
    async for click in stream.group_by(lambda click: click.id % BUCKETS, name="bucket"):
        bucket = click.id % BUCKETS
        buckets[bucket] += 1
        yield [click.id, bucket, buckets[bucket]]
