"""The outlet's transactions on real Kafka: all or nothing, and never a zombie's."""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from aiokafka.protocol.transaction import EndTxnRequest

from engine.config import Config, make
from engine.devbroker import DevBroker
from engine.edges import Assigned, Position, Transaction
from engine.errors import CommitRefused, CommitUnknown, RecordRefused
from engine.kafka.assignor import Group, assignor_for
from engine.kafka.consumer import KafkaSource
from engine.kafka.log import KafkaLog
from engine.kafka.producer import KafkaOutlet, Membership
from engine.record import TP
from engine.torture import observer

pytestmark = pytest.mark.broker


class Member:
    """A member of a group with a producer: what a worker has."""

    def __init__(self, config: Config, topic: str, instance: str) -> None:
        self.source = KafkaSource(config, assignor_for([Group((topic,), stateful=False)]), instance)
        self.outlet = KafkaOutlet(config, f"{config.id}-{instance}")
        self.assigned: frozenset[TP] = frozenset()
        self._topic = topic

    async def join(self) -> None:
        await self.outlet.open()

        async def revoked() -> None:
            self.assigned = frozenset()

        await self.source.start([self._topic], revoked=revoked, assigned=self._take)

    def _take(self, assigned: Assigned) -> None:
        self.assigned = assigned.active

    async def leave(self) -> None:
        await self.source.close()
        await self.outlet.close()


async def until(condition) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)


@asynccontextmanager
async def members(kafka: DevBroker, count: int) -> AsyncIterator[tuple[Config, str, list[Member]]]:
    """Members of a new group on a new topic with one partition; only the first has joined."""
    app = f"tx-{uuid.uuid4().hex[:8]}"
    topic = f"{app}-in"
    await observer.create(kafka.bootstrap, {topic: {}, f"{app}-out": {}}, 1)
    config = make({"id": app, "broker": kafka.bootstrap, "session_timeout_ms": 3000}, {})
    group = [Member(config, topic, str(number)) for number in range(count)]
    await group[0].join()
    await until(lambda: group[0].assigned)
    try:
        yield config, topic, group
    finally:
        for member in group:
            await member.leave()


def rows(app: str, *values: bytes) -> dict[TP, list]:
    return {TP(f"{app}-out", 0): [(b"k", value, 1, ()) for value in values]}


async def out(kafka: DevBroker, app: str) -> list[bytes | None]:
    seen = await observer.observe(kafka.bootstrap, [f"{app}-out"])
    return [record.value for record in seen.topics[f"{app}-out"]]


async def test_a_transaction_shows_records_and_offsets_together(kafka: DevBroker) -> None:
    """Records, offsets and metadata are there afterwards, and the ends are where they say."""
    async with members(kafka, 1) as (config, topic, (one,)):
        tp = TP(topic, 0)
        for number in range(3):
            ends = await one.outlet.commit(
                Transaction(
                    rows(config.id, b"%d" % number),
                    {tp: Position(number, "note")},
                    one.source.membership(),
                )
            )
        assert await out(kafka, config.id) == [b"0", b"1", b"2"]
        assert ends == {TP(f"{config.id}-out", 0): 5}  # two markers lie before the third record
        assert await one.source.positions([tp]) == {tp: Position(2, "note")}


async def test_a_member_of_an_older_generation_is_refused(kafka: DevBroker) -> None:
    """KIP-447: offsets with a stale generation are refused, and the records stay invisible."""
    async with members(kafka, 1) as (config, topic, (one,)):
        tp = TP(topic, 0)
        member = one.source.membership()
        good = Transaction(rows(config.id, b"good"), {tp: Position(1, "")}, member)
        await one.outlet.commit(good)
        stale = Membership(member.generation - 1, member.member_id)
        with pytest.raises(CommitRefused, match="not the owner"):
            await one.outlet.commit(
                Transaction(rows(config.id, b"bad"), {tp: Position(9, "")}, stale)
            )
        with pytest.raises(CommitRefused):
            await one.outlet.open()
            stranger = Membership(member.generation, "somebody-else")
            await one.outlet.commit(
                Transaction(rows(config.id, b"worse"), {tp: Position(9, "")}, stranger)
            )
        await one.outlet.open()
        await one.outlet.commit(Transaction(rows(config.id, b"again"), {}, member))
        assert await out(kafka, config.id) == [b"good", b"again"]
        assert await one.source.positions([tp]) == {tp: Position(1, "")}


async def test_a_member_that_was_thrown_out_commits_nothing(kafka: DevBroker) -> None:
    """Kafka does not check offsets without a member (generation -1): we must not send them."""
    async with members(kafka, 1) as (config, topic, (one,)):
        tp = TP(topic, 0)
        await one.outlet.commit(Transaction({}, {tp: Position(7, "")}, one.source.membership()))
        one.source._consumer._coordinator.reset_generation()
        with pytest.raises(CommitRefused):
            await one.outlet.commit(
                Transaction(
                    rows(config.id, b"zombie"), {tp: Position(1, "")}, one.source.membership()
                )
            )
        await one.outlet.open()
        await one.outlet.commit(Transaction(rows(config.id, b"after"), {}, None))
        assert await out(kafka, config.id) == [b"after"]
        assert await one.source.positions([tp]) == {tp: Position(7, "")}


async def test_a_second_producer_of_the_same_id_fences_the_first(kafka: DevBroker) -> None:
    """InitProducerId by a successor: the predecessor's next transaction is refused."""
    async with members(kafka, 1) as (config, topic, (one,)):
        heir = KafkaOutlet(config, f"{config.id}-0")
        await heir.open()
        with pytest.raises(CommitRefused):
            await one.outlet.commit(Transaction(rows(config.id, b"old"), {}, None))
        await heir.commit(Transaction(rows(config.id, b"new"), {}, None))
        await heir.close()
        assert await out(kafka, config.id) == [b"new"]
        assert topic


async def test_a_record_that_is_too_large_spoils_its_whole_transaction(kafka: DevBroker) -> None:
    """A refused batch: nothing is visible, not even what was accepted beside it."""
    async with members(kafka, 1) as (config, topic, (one,)):
        tp = TP(topic, 0)
        both = rows(config.id, b"small")
        both[tp] = [(b"k", os.urandom(3 << 20), 1, ())]
        with pytest.raises(RecordRefused, match="nothing of this transaction is visible"):
            await one.outlet.commit(
                Transaction(both, {tp: Position(5, "")}, one.source.membership())
            )
        await one.outlet.open()
        await one.outlet.commit(Transaction(rows(config.id, b"after"), {}, None))
        assert await out(kafka, config.id) == [b"after"]
        assert await one.source.positions([tp]) == {tp: None}


async def test_positions_wait_for_a_transaction_that_is_still_open(kafka: DevBroker) -> None:
    """A new owner must not read the offsets that a dead one is about to commit."""
    async with members(kafka, 1) as (config, topic, (one,)):
        tp = TP(topic, 0)
        member = one.source.membership()
        await one.outlet.commit(Transaction({}, {tp: Position(1, "")}, member))
        hanging = KafkaOutlet(config, f"{config.id}-hanging")
        await hanging.open()
        transaction = Transaction({}, {tp: Position(2, "")}, member)
        await asyncio.gather(*(call() for call in hanging._announce(transaction)))
        await hanging._commit_offsets(transaction)
        reading = asyncio.ensure_future(one.source.positions([tp]))
        await asyncio.sleep(0.5)
        assert not reading.done()
        await hanging.open()  # its successor: the open transaction is aborted
        assert await reading == {tp: Position(1, "")}
        await hanging.close()


async def test_the_log_reads_committed_records_only_and_passes_over_the_rest(
    kafka: DevBroker,
) -> None:
    """Aborted records are skipped, markers move the position, reading may start anywhere."""
    async with members(kafka, 1) as (config, topic, (one,)):
        tp = TP(f"{config.id}-out", 0)
        await one.outlet.commit(Transaction(rows(config.id, b"a", b"b", b"c"), {}, None))
        with pytest.raises(CommitRefused):
            await one.outlet.commit(
                Transaction(
                    rows(config.id, b"x"), {TP(topic, 0): Position(1, "")}, Membership(0, "z")
                )
            )
        await one.outlet.open()
        await one.outlet.commit(Transaction(rows(config.id, b"d"), {}, None))
        log = KafkaLog(config)
        first, end = (await log.bounds([tp]))[tp]
        assert first == 0
        for start, values in ((0, b"abcd"), (1, b"bcd"), (3, b"d")):
            got, at = [], start
            async for batch in log.read({tp: (start, end)}):
                got += batch.values
                at = batch.next_offset
            assert b"".join(got) == values
            assert at == end
        got = []
        async for batch in log.read({tp: (0, 2)}):  # the fetch brings all three of the first batch
            got += batch.values
        assert got == [b"a", b"b"]
        await log.close()


async def test_an_heir_ends_what_a_dead_worker_left_open(kafka: DevBroker) -> None:
    """It need not wait until the transaction's time is up: here that would be a minute."""
    async with members(kafka, 1) as (config, topic, (one,)):
        tp = TP(topic, 0)
        slow = msgspec.structs.replace(config, transaction_timeout_ms=60_000)
        dead = KafkaOutlet(slow, f"{config.id}-dead")
        await dead.open()
        member = one.source.membership()
        first = Transaction(rows(config.id, b"first"), {tp: Position(1, "{}")}, member)
        await dead.commit(first)

        async def die(*_: object) -> None:
            raise OSError("the process died here")

        send = dead._client.send

        async def send_all_but_the_end(node: int, request: Any, **more: Any) -> Any:
            if isinstance(request, EndTxnRequest):
                await die()
            return await send(node, request, **more)

        dead._client.send = send_all_but_the_end
        lost = Transaction(rows(config.id, b"lost"), {tp: Position(2, "{}")}, member)
        with pytest.raises(CommitUnknown):
            await dead.commit(lost)
        began = asyncio.get_running_loop().time()
        assert await one.source.positions([tp]) == {tp: Position(1, "{}")}
        assert asyncio.get_running_loop().time() - began < 20
        assert await out(kafka, config.id) == [b"first"]
