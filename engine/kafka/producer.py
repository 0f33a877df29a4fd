"""Transactions on Kafka, one producer a worker (KIP-447), written out request by request.

A commit knows everything that is in it before it begins, so a transaction is five steps and takes
about as many round trips:

1. AddPartitionsToTxn and AddOffsetsToTxn to the transaction coordinator, one behind the other.
2. Produce to each leader, one batch a partition a request; every answer is looked at.
3. TxnOffsetCommit v3 to the group coordinator, with generation and member id: a worker that has
   lost its partitions is refused here.
4. EndTxn.

A refusal that passes (a leader moved, a coordinator is loading, the last transaction's markers are
still being written) is tried again with the same bytes, which the sequence numbers make safe. A
request that got *no answer* is never repeated: a late EndTxn could hit the next transaction
(Jepsen, Bufstream 0.1.0). Then the outcome is unknown, this producer is finished, and only
:meth:`KafkaOutlet.open` (InitProducerId: a new epoch, the old transaction decided) can go on.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from aiokafka.client import ConnectionGroup, CoordinationType
from aiokafka.errors import KafkaError
from aiokafka.protocol.transaction import (
    AddOffsetsToTxnRequest,
    AddPartitionsToTxnRequest,
    EndTxnRequest,
    InitProducerIdRequest,
)

from engine import crashpoint
from engine.errors import AccessDenied, BrokerError, CommitUnknown
from engine.kafka import protocol
from engine.kafka.client import back_off
from engine.kafka.produce import Connected, Producing, Refused, together
from engine.kafka.records import halves
from engine.record import TP
from engine.stages import charged, stages

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from engine.clock import Clock
    from engine.config import Config
    from engine.edges import Transaction
    from engine.kafka.records import Encoded
    from engine.record import Output

log = logging.getLogger(__name__)

OPEN_TIMEOUT_S = 60.0
_NOTHING = {protocol.NONE, protocol.OPERATION_NOT_ATTEMPTED}  # for another one's sake
_TXN, _GROUP = CoordinationType.TRANSACTION, CoordinationType.GROUP


class Membership(NamedTuple):
    """What proves to the group coordinator that partitions are ours."""

    generation: int
    member_id: str
    instance_id: str | None = None

    @property
    def lost(self) -> bool:
        """Whether the group has thrown us out, as far as we know already."""
        return self.generation < 0 or not self.member_id


class KafkaOutlet(Connected):
    """The one transactional producer of a worker.

    Args:
        transactional_id: the worker's own, the same after a restart, so that a restart ends what
            its predecessor left open.
    """

    transactional = True

    def __init__(self, config: Config, transactional_id: str, clock: Clock | None = None) -> None:
        super().__init__(config, clock)
        self._id = transactional_id
        self._producer = (-1, -1)
        self._sequences: dict[TP, int] = {}
        self._coordinators: dict[Any, int] = {}

    # -- open and close ----------------------------------------------------------------------

    async def open(self) -> None:
        """Take the transactional id: whoever had it before is fenced, its transaction decided.

        Raises:
            BrokerError: no broker answers in time.
        """
        await self.close()
        self._sequences.clear()
        self._coordinators.clear()
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                await self._connect()
                crashpoint.reach("before-init")
                answer = await self._ask(
                    _TXN,
                    lambda: InitProducerIdRequest(
                        transactional_id=self._id,
                        transaction_timeout_ms=self._config.transaction_timeout_ms,
                    ),
                    lambda answer: [(answer.error_code, None)],
                    "InitProducerId",
                )
        except Refused as error:
            if error.code in protocol.DENIED:
                raise AccessDenied(
                    f"no permission to use the transactional id {self._id} ({error}): grant WRITE "
                    "and DESCRIBE on it"
                ) from error
            raise self._no_producer(error) from error
        except (TimeoutError, KafkaError, OSError) as error:
            raise self._no_producer(error) from error
        crashpoint.reach("after-init")
        self._producer = (answer.producer_id, answer.producer_epoch)
        log.debug("producer %s: id %d, epoch %d", self._id, *self._producer)

    def _no_producer(self, error: Exception) -> BrokerError:
        return BrokerError(
            f"the broker at {self._config.broker} gives no transactional producer ({error!r}); "
            "one that has no transactions at all needs --guarantee at_least_once"
        )

    # -- the transaction ---------------------------------------------------------------------

    async def commit(self, transaction: Transaction) -> dict[TP, int]:
        """See :class:`engine.edges.Outlet`; the steps are in the module's docstring."""
        deadline_s = self._config.transaction_timeout_ms / 2000
        try:
            async with asyncio.timeout(deadline_s):
                return await self._commit(transaction)
        except Refused as error:
            await self.close()  # this producer is finished for good
            raise error.as_error() from error
        except (TimeoutError, KafkaError, OSError, AssertionError) as error:
            await self.close()  # this producer is finished for good
            raise CommitUnknown(f"no answer to a part of the transaction: {error!r}") from error

    async def _commit(self, transaction: Transaction) -> dict[TP, int]:
        client = self._client
        assert client is not None, "the outlet is not open"
        if transaction.positions and transaction.membership.lost:
            # Kafka takes offsets *without* a member for those of an old client, and checks nothing
            raise Refused("the membership is lost", protocol.UNKNOWN_MEMBER_ID)
        rows = transaction.rows
        first = {tp: self._sequences.get(tp, 0) for tp in rows}
        before = stages.switch("encode")
        batches = {tp: self._encode_next(rows[tp], sequence=first[tp]) for tp in rows}
        stages.switch(before)
        crashpoint.reach("before-send")
        # 1. what the transaction will touch
        await together(charged("commit", call) for call in self._announce(transaction))
        crashpoint.reach("after-add-offsets")
        # 2. the records
        ends = await Producing(
            client, self._id,
            lambda tp, batch: halves(batch, rows[tp], self._encode_next, first[tp]),
        ).send(batches)  # fmt: skip
        for tp in rows:
            self._sequences[tp] = (first[tp] + len(rows[tp])) % (1 << 31)
        crashpoint.reach("after-gather")
        # 3. the offsets
        if transaction.positions:
            await self._commit_offsets(transaction)
        crashpoint.reach("after-offsets")
        # 4. the end
        await self._ask(
            _TXN,
            lambda: EndTxnRequest(self._id, *self._producer, True),  # noqa: FBT003
            lambda answer: [(answer.error_code, None)],
            "EndTxn",
        )
        return ends

    def _encode_next(self, rows: list[Output], **how: Any) -> list[Encoded]:
        return self._encode(rows, producer=self._producer, transactional=True, **how)

    def _announce(self, transaction: Transaction) -> list[Callable[[], Coroutine[Any, Any, Any]]]:
        announced: list[Callable[[], Coroutine[Any, Any, Any]]] = []
        if transaction.rows:
            topics: dict[str, list[int]] = defaultdict(list)
            for tp in transaction.rows:
                topics[tp.topic].append(tp.partition)
            announced.append(
                partial(
                    self._ask,
                    _TXN,
                    lambda: AddPartitionsToTxnRequest(
                        self._id, *self._producer, list(topics.items())
                    ),
                    lambda answer: [
                        (code, TP(topic, partition))
                        for topic, parts in answer.errors
                        for partition, code in parts
                    ],
                    "AddPartitionsToTxn",
                )
            )
        if transaction.positions:
            announced.append(
                partial(
                    self._ask,
                    _TXN,
                    lambda: AddOffsetsToTxnRequest(self._id, *self._producer, self._config.id),
                    lambda answer: [(answer.error_code, None)],
                    "AddOffsetsToTxn",
                )
            )
        return announced

    async def _commit_offsets(self, transaction: Transaction) -> None:
        member: Membership = transaction.membership
        topics = _by_topic(transaction.positions, self._id)
        await self._ask(
            _GROUP,
            lambda: protocol.TxnOffsetCommit(
                self._id, self._config.id, *self._producer, *member, topics
            ),
            lambda answer: [
                (code, TP(topic, partition))
                for topic, parts, _ in answer.topics
                for partition, code, _ in parts
            ],
            "TxnOffsetCommit",
        )

    async def _ask(
        self,
        kind: Any,
        request: Callable[[], Any],
        codes: Callable[[Any], Iterable[tuple[int, TP | None]]],
        what: str,
    ) -> Any:
        """Send a request to a coordinator until it is accepted.

        Only *answered* refusals are tried again.

        Raises:
            Refused: with a code that does not pass.
            KafkaError, OSError: no answer.
        """
        client = self._client
        assert client is not None, "the outlet was closed"
        attempt = 0
        while True:
            node = await self._coordinator(kind)
            asking = client.send(node, request(), group=ConnectionGroup.COORDINATION)
            answer = await (crashpoint.sent("end-sent", asking) if what == "EndTxn" else asking)
            errors = {code: tp for code, tp in codes(answer) if code not in _NOTHING}
            if not errors:
                return answer
            final = errors.keys() - protocol.TRY_COORDINATOR_AGAIN
            if final:
                code = min(final)
                raise Refused(what, code, errors[code])
            if errors.keys() & protocol.COORDINATOR_MOVED:
                self._coordinators.pop(kind, None)
            await back_off(attempt)
            attempt += 1

    async def _coordinator(self, kind: Any) -> int:
        node = self._coordinators.get(kind)
        attempt = 0
        while node is None:
            assert self._client is not None, "the outlet was closed"
            key = self._id if kind == _TXN else self._config.id
            try:
                node = await self._client.coordinator_lookup(kind, key)
                if await self._client.ready(node, group=ConnectionGroup.COORDINATION):
                    break
            except KafkaError as error:
                if not error.retriable:
                    raise
            node = None
            await back_off(attempt, first_s=0.02)
            attempt += 1
            await self._client.force_metadata_update()
        self._coordinators[kind] = node
        return node


def transactional_id(config: Config, instance: str) -> str:
    """Return the transactional id of the worker of that name."""
    return f"{config.id}-{instance}"


def signed(writer: str, metadata: str) -> str:
    """Return an offset's metadata with the transactional id of who commits it."""
    return f"{writer}|{metadata}"


def unsigned(metadata: str) -> tuple[str, str]:
    """Return who committed an offset ("": it does not say), and its metadata."""
    writer, bar, rest = metadata.partition("|")
    return (writer, rest) if bar and not metadata.startswith("{") else ("", metadata)


def _by_topic(
    positions: Any, writer: str
) -> list[tuple[str, list[tuple[int, int, int, str, dict[int, bytes]]], dict[int, bytes]]]:
    topics: dict[str, list[tuple[int, int, int, str, dict[int, bytes]]]] = defaultdict(list)
    for tp, at in positions.items():
        metadata = signed(writer, at.metadata)
        topics[tp.topic].append((tp.partition, at.offset, -1, metadata, {}))
    return [(topic, partitions, {}) for topic, partitions in topics.items()]
