"""Outputs that real Kafka does not take: too large, or not permitted. Neighbours are intact."""

import random
import uuid
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest, DeleteAclsRequest

from engine import App
from engine.devbroker import DevBroker, start_kafka
from engine.torture import observer
from tests.broker import inside
from tests.broker.conftest import need_kafka
from tests.broker.inside import now_ms

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]

TOPIC, LITERAL, ANY, WRITE, DENY = 2, 3, "*", 4, 2
"""Kafka's numbers of kinds of resources and patterns, of operations and permissions."""


def job(name: str) -> App:
    """Makes texts of the wished length, and keeps the total."""
    app = App(name, commit_interval_ms=50)
    wishes = app.topic(f"{name}-in", value_type=int, key_type=str)
    texts = app.topic(f"{name}-out", value_type=str)
    total = app.Table("total", default=int)
    draw = random.Random(1)

    @app.agent(wishes, sink=[texts])
    async def write(stream):
        async for length in stream:
            total["all"] += length
            yield "".join(draw.choices("0123456789abcdefghijklmnopqrstuvwxyz", k=length))

    return app


async def wish(bootstrap: str, name: str, lengths: list[int]) -> None:
    records = [(b"k", b"%d" % length, now_ms()) for length in lengths]
    await observer.produce(bootstrap, f"{name}-in", records, 1)


async def test_a_batch_that_is_too_large_is_halved_and_a_record_that_is_so_is_traced(
    kafka: DevBroker, tmp_path: Path
) -> None:
    """1,000 outputs fill many batches of what the topic takes; two alone are larger than it."""
    name = f"large-{uuid.uuid4().hex[:6]}"
    limit = {"max.message.bytes": "3000"}
    await observer.create(kafka.bootstrap, {f"{name}-in": {}, f"{name}-out": limit}, 1)
    lengths = [500 + number % 50 for number in range(1000)]
    lengths[313] = lengths[614] = 9000
    await wish(kafka.bootstrap, name, lengths)
    async with inside.worker(job(name), kafka.bootstrap, tmp_path, partitions=1) as worker:
        await worker.until_committed(**{f"{name}-in": 1000})
        table = worker.engine.assignment.working()[0].tables["total"]
        assert dict(table.items())["all"] == sum(n for n in lengths if n != 9000)
        refusals = worker.engine.metrics.totals["commits record refused"]
    seen = await observer.observe(kafka.bootstrap, [f"{name}-out", f"{name}-in-dlq"])
    out = [len(record.value) for record in seen.topics[f"{name}-out"]]
    assert out == [n for n in lengths if n != 9000]
    letters = seen.topics[f"{name}-in-dlq"]
    assert [int(letter.headers["__streams.errors.offset"]) for letter in letters] == [313, 614]
    assert "MESSAGE_TOO_LARGE" in letters[0].headers["__streams.errors.message"].decode()
    assert refusals < 40


class Guard:
    """Denies and allows writing to topics."""

    def __init__(self, bootstrap: str) -> None:
        self._admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)

    async def __aenter__(self) -> "Guard":
        await self._admin.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._admin.close()

    async def deny(self, topic: str) -> None:
        """Nobody may write to a topic."""
        answer = await self._admin._send_request(CreateAclsRequest(*self._rule(topic)))
        assert [code for code, *_ in answer.creation_responses] == [0], answer

    async def allow(self, topic: str) -> None:
        """Take that back."""
        answer = await self._admin._send_request(DeleteAclsRequest(*self._rule(topic)))
        assert all(code == 0 for code, *_ in answer.filter_responses), answer

    def _rule(self, topic: str) -> tuple[object, ...]:
        return TOPIC, topic, LITERAL, "User:ANONYMOUS", ANY, WRITE, DENY


async def test_a_permission_that_is_taken_away_is_waited_for(tmp_path: Path) -> None:
    """The task says so and waits; its neighbour of another topic goes on; then all is there."""
    need_kafka()
    authorizer = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "true",
    }
    app = job("guarded")
    others, echoed = app.topic("others", value_type=int), app.topic("echoed", value_type=int)

    @app.agent(others, sink=[echoed])
    async def echo(stream):
        async for number in stream:
            yield number

    with start_kafka(tmp_path / "kafka", overrides=authorizer) as broker:
        bootstrap = broker.bootstrap
        topics = ("guarded-in", "guarded-out", "others", "echoed")
        await observer.create(bootstrap, {topic: {} for topic in topics}, 1)
        await wish(bootstrap, "guarded", [1, 2, 3])
        async with (
            Guard(bootstrap) as guard,
            inside.worker(app, bootstrap, tmp_path / "state", partitions=1) as worker,
        ):
            await worker.until_committed(**{"guarded-in": 3})
            await guard.deny("guarded-out")
            await wish(bootstrap, "guarded", [4, 5])
            await worker.until(worker.parked, "nothing waits")
            assert "no permission on topic guarded-out" in worker.parked()[0]
            assert "TOPIC_AUTHORIZATION_FAILED" in worker.parked()[0]
            await observer.produce(bootstrap, "others", [(b"k", b"7", now_ms())], 1)
            await worker.until_committed(others=1)
            await guard.allow("guarded-out")
            await worker.until_committed(**{"guarded-in": 5})
            assert not worker.parked()
        seen = await observer.observe(bootstrap, ["guarded-out", "echoed", "guarded-in-dlq"])
        assert [len(r.value) for r in seen.topics["guarded-out"]] == [1, 2, 3, 4, 5]
        assert len(seen.topics["echoed"]) == 1
        assert seen.topics["guarded-in-dlq"] == []
