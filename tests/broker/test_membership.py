"""Static membership on real Kafka: coming back is free; two of one name are one too many."""

import asyncio
import time
import uuid

import pytest

from engine.config import Config, make
from engine.devbroker import DevBroker
from engine.edges import Assigned
from engine.errors import ConfigError
from engine.kafka.assignor import Group, assignor_for
from engine.kafka.client import release
from engine.kafka.consumer import KafkaSource
from engine.torture import observer

pytestmark = [pytest.mark.broker, pytest.mark.timeout(90)]

SESSION_MS = 30_000
"""Nothing here may wait for it."""


class Member:
    """A member of a group, polling as a worker does."""

    def __init__(self, config: Config, instance: str) -> None:
        self.source = KafkaSource(
            config, assignor_for([Group((f"{config.id}-in",), stateful=False)]), instance
        )
        self.given: list[Assigned] = []
        self._topic = f"{config.id}-in"

    async def join(self) -> None:
        async def revoked() -> None:
            pass

        await self.source.start([self._topic], revoked=revoked, assigned=self.given.append)

    async def until(self, condition, timeout_s: float = 20) -> float:
        """Poll until something is so; return how long it took."""
        began = time.monotonic()
        async with asyncio.timeout(timeout_s):
            while not condition():
                await self.source.poll(20, full=())
        return time.monotonic() - began

    def tasks(self) -> int:
        """Return how many partitions it has."""
        return len(self.given[-1].active) if self.given else 0

    async def die(self) -> None:
        """Go without a word: as after SIGKILL, the group does not know."""
        consumer, self.source._consumer = self.source._consumer, None
        await release(consumer)


async def group_of(kafka: DevBroker, **settings: str) -> Config:
    app = f"static-{uuid.uuid4().hex[:8]}"
    await observer.create(kafka.bootstrap, {f"{app}-in": {}}, 4)
    return make({
        "id": app, "broker": kafka.bootstrap, "session_timeout_ms": SESSION_MS, **settings,
    })  # fmt: skip


async def pair(config: Config) -> tuple[Member, Member]:
    """Two members that have two partitions each."""
    one, two = Member(config, "one"), Member(config, "two")
    await one.join()
    await one.until(lambda: one.tasks() == 4)
    await two.join()
    await asyncio.gather(one.until(lambda: one.tasks() == 2), two.until(lambda: two.tasks() == 2))
    return one, two


async def test_a_worker_that_comes_back_has_its_tasks_again_without_a_rebalance(
    kafka: DevBroker,
) -> None:
    config = await group_of(kafka)
    one, two = await pair(config)
    held, generation = two.given[-1].active, two.given[-1].membership.generation
    await two.die()
    again = Member(config, "two")
    await again.join()
    took = await again.until(lambda: again.tasks() == 2)
    assert took < SESSION_MS / 1000 / 2
    assert again.given[-1].active == held
    assert again.given[-1].membership.generation == generation
    assert again.given[-1].membership.member_id != two.given[-1].membership.member_id
    assert len(one.given) == 2, "the other one was not bothered"
    for member in (one, again):
        await member.source.close()


async def test_of_two_workers_of_one_name_one_stops_and_says_why(kafka: DevBroker) -> None:
    """Thrown out once, either joins anew; thrown out twice, it stops."""
    config = await group_of(kafka)
    one, two = await pair(config)
    twin = Member(config, "two")
    await twin.join()
    await twin.until(lambda: twin.tasks() == 2)
    twins = {member: asyncio.create_task(member.until(lambda: False, 60)) for member in (two, twin)}
    [stopped], [going] = await asyncio.wait(twins.values(), return_when="FIRST_COMPLETED")
    with pytest.raises(ConfigError, match=r"'two'.*Give each worker a name of its own"):
        await stopped
    going.cancel()
    stays = next(member for member, task in twins.items() if task is going)
    began = time.monotonic()
    await asyncio.gather(*(m.until(lambda: time.monotonic() - began > 5) for m in (one, stays)))
    assert stays.tasks() == 2
    for member in (one, two, twin):
        await member.source.close()


async def test_a_worker_that_is_thrown_out_once_comes_back(kafka: DevBroker) -> None:
    """Its twin is gone at once: nobody has to do anything."""
    config = await group_of(kafka)
    one, two = await pair(config)
    twin = Member(config, "two")
    await twin.join()
    await twin.until(lambda: twin.tasks() == 2)
    await twin.die()
    before = len(two.given)
    await two.until(lambda: len(two.given) > before)
    assert two.tasks() == 2
    for member in (one, two):
        await member.source.close()


async def test_a_worker_that_stops_leaves_its_tasks_to_the_others_at_once(
    kafka: DevBroker,
) -> None:
    config = await group_of(kafka)
    one, two = await pair(config)
    await two.source.close()
    assert await one.until(lambda: one.tasks() == 4) < SESSION_MS / 1000 / 2
    await one.source.close()


async def test_a_worker_that_was_given_a_name_keeps_its_place_when_it_stops(
    kafka: DevBroker,
) -> None:
    """A rolling restart of workers with names moves nothing."""
    config = await group_of(kafka, instance="named")
    one, two = await pair(config)
    held = two.given[-1]
    await two.source.close()
    again = Member(config, "two")
    await again.join()
    await again.until(lambda: again.tasks() == 2)
    assert again.given[-1].active == held.active
    assert again.given[-1].membership.generation == held.membership.generation
    assert len(one.given) == 2
    for member in (one, again):
        await member.die()
