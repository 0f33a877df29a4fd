"""What a broker answers, asked of both: of the simulated cluster and of Apache Kafka.

A trace sends requests of the engine's own and notes the answers; ``tests/broker`` compares what the
two worlds said. So the rules that the simulation rests on are Kafka's, and not what we think of it.
"""

import asyncio
from typing import NamedTuple

from aiokafka.client import ConnectionGroup, CoordinationType
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import (
    AddOffsetsToTxnRequest,
    AddPartitionsToTxnRequest,
    EndTxnRequest,
)

from engine.kafka import protocol
from engine.kafka.records import encode_batches

NOT_YET = {protocol.CONCURRENT_TRANSACTIONS, *protocol.TRY_COORDINATOR_AGAIN}
"""Answers that only say when: traces ask again."""


class Party(NamedTuple):
    """A member of the group with a producer.

    Attributes:
        name: of its producer.
    """

    app: str
    name: str
    source: object
    outlet: object

    @property
    def producer(self):
        return self.outlet._producer

    async def ask(self, kind, request):
        """Send a request to a coordinator, as the outlet does, and return the answer."""
        node = await self.outlet._coordinator(kind)
        send = self.outlet._client.send
        return await send(node, request, group=ConnectionGroup.COORDINATION)

    async def insist(self, request, code_of):
        """Ask the transaction coordinator until it does not say "not yet"; return the code."""
        while True:
            code = code_of(await self.ask(CoordinationType.TRANSACTION, request))
            if code not in NOT_YET:
                return code
            await asyncio.sleep(0.02)

    async def open_transaction(self, tp=None, *, offsets=False, producer=None):
        """Open one, for a partition or for offsets; return the error code."""
        who = self.name, *(producer or self.producer)
        if offsets:
            request = AddOffsetsToTxnRequest(*who, self.app)
            return await self.insist(request, lambda answer: answer.error_code)
        request = AddPartitionsToTxnRequest(*who, [(tp.topic, [tp.partition])])
        return await self.insist(request, lambda answer: answer.errors[0][1][0][1])

    async def end(self, *, commits=True, producer=None):
        """End it; return the error code."""
        request = EndTxnRequest(self.name, *(producer or self.producer), commits)
        return await self.insist(request, lambda answer: answer.error_code)

    async def offsets(self, tp, offset, member):
        """Put an offset into it, as a member of the group; return the error code."""
        topics = [(tp.topic, [(tp.partition, offset, -1, "", {})], {})]
        request = protocol.TxnOffsetCommit(self.name, self.app, *self.producer, *member, topics)
        return (await self.ask(CoordinationType.GROUP, request)).topics[0][1][0][1]

    async def committed(self, tp):
        """Return the committed offset of a partition, and the error code."""
        asked = [(tp.topic, [tp.partition], {})]
        answer = await self.ask(CoordinationType.GROUP, protocol.OffsetFetch(self.app, asked, True))  # noqa: FBT003
        _, offset, _, _, code, _ = answer.topics[0][1][0]
        return offset, code

    async def produce(self, tp, values, sequence, producer=None):
        """Send a batch; return the error code and its offset."""
        rows = [(b"k", value, 1, ()) for value in values]
        (batch,) = encode_batches(
            rows, 0, producer=producer or self.producer, sequence=sequence, transactional=True
        )
        request = ProduceRequest(
            transactional_id=self.name,
            required_acks=-1,
            timeout=5000,
            topics=[(tp.topic, [(tp.partition, batch.data)])],
        )
        await self.outlet._client._wait_on_metadata(tp.topic)
        node = self.outlet._client.cluster.leader_for_partition(tp)
        _, code, offset, *_ = (await self.outlet._client.send(node, request)).topics[0][1][0]
        return code, offset


def fenced(code):
    """Say whether a code means that somebody else is the owner: its number depends on versions."""
    return "fenced" if code in protocol.FENCED else code


async def a_stale_generation(world):
    """Offsets of an older generation, of a stranger, of nobody."""
    one = await world.party("one")
    old = one.source.membership()
    await one.open_transaction(offsets=True)
    said = [await one.offsets(world.input, 5, old)]
    two = await world.party("two")
    await world.rebalanced([one, two])
    said.append(await one.offsets(world.input, 6, old))
    now = one.source.membership()
    said.append(await one.offsets(world.input, 7, now._replace(member_id="x", instance_id="x")))
    said.append(await one.offsets(world.input, 8, now))
    nobody = now._replace(generation=-1, member_id="", instance_id=None)
    said.append(await one.offsets(world.input, 9, nobody))
    return [*said, await one.end()]


async def a_name_that_is_taken(world):
    """A worker that comes back under its name has its generation; the old member is out."""
    one = await world.party("one")
    old = one.source.membership()
    again = await world.party("one", producer="other")
    new = again.source.membership()
    await again.open_transaction(offsets=True)
    return [
        new.generation - old.generation,
        new.member_id == old.member_id,
        await again.offsets(world.input, 1, old),
        await again.offsets(world.input, 2, new),
        await again.end(),
    ]


async def offsets_of_an_open_transaction(world):
    """Stable offsets are not told while a transaction on them is open."""
    one = await world.party("one")
    said = [await one.committed(world.input)]
    await one.open_transaction(offsets=True)
    await one.offsets(world.input, 5, one.source.membership())
    said.append((await one.committed(world.input))[1])
    await one.end()
    await world.until_stable(one)
    said.append(await one.committed(world.input))
    await one.open_transaction(offsets=True)
    await one.offsets(world.input, 9, one.source.membership())
    await one.end(commits=False)
    await world.until_stable(one)
    return [*said, await one.committed(world.input)]


async def a_new_producer_of_the_same_name(world):
    """It ends what the old one left open, and the old one can do nothing more."""
    one = await world.party("one")
    await one.open_transaction(world.output)
    said = [await one.produce(world.output, [b"a"], 0)]
    old = one.producer
    await one.outlet.open()
    said.append((one.producer[0] == old[0], one.producer[1] - old[1]))
    said.append(fenced(await one.open_transaction(world.output, producer=old)))
    said.append(fenced(await one.end(producer=old)))
    said.append(fenced((await one.produce(world.output, [b"b"], 1, producer=old))[0]))
    await one.open_transaction(world.output)
    said.append((await one.produce(world.output, [b"c"], 0))[0])
    await one.end()
    await world.decided(world.output)
    return [*said, await world.read(world.output)]


async def the_last_stable_offset(world):
    """What is behind an open transaction is not read; a marker takes an offset."""
    one, two = await world.party("one"), await world.party("two")
    said = []
    await one.open_transaction(world.output)
    await one.produce(world.output, [b"a", b"b"], 0)
    await two.open_transaction(world.output)
    await two.produce(world.output, [b"c"], 0)
    await two.end()
    said.append(await world.ends(world.output, until=(0, 4)))
    await one.end(commits=False)
    said.append(await world.ends(world.output, until=(5, 5)))
    return [*said, await world.read(world.output)]


async def an_end_twice(world):
    """EndTxn may be asked again, with the same answer; not the opposite."""
    one = await world.party("one")
    said = [await one.end()]
    await one.open_transaction(world.output)
    said += [await one.end(), await one.end(), await one.end(commits=False)]
    await one.open_transaction(world.output)
    said += [await one.end(commits=False), await one.end(commits=False), await one.end()]
    return said


async def sequence_numbers(world):
    """The same batch again is taken once; a gap is refused; so is what was not announced."""
    one = await world.party("one")
    said = [(await one.produce(world.output, [b"too early"], 0))[0]]
    await one.open_transaction(world.output)
    said.append(await one.produce(world.output, [b"a", b"b"], 0))
    said.append(await one.produce(world.output, [b"a", b"b"], 0))
    said.append((await one.produce(world.output, [b"gap"], 5))[0])
    said.append(await one.produce(world.output, [b"c"], 2))
    await one.end()
    await world.decided(world.output)
    return [*said, await world.read(world.output)]


TRACES = (
    a_stale_generation,
    a_name_that_is_taken,
    offsets_of_an_open_transaction,
    a_new_producer_of_the_same_name,
    the_last_stable_offset,
    an_end_twice,
    sequence_numbers,
)
