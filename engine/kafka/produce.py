"""Sending record batches to the leaders of their partitions, and looking at every answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict, deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from aiokafka.errors import KafkaError
from aiokafka.protocol.produce import ProduceRequest

from engine import crashpoint
from engine.clock import SystemClock
from engine.errors import (
    AccessDenied,
    BrokerError,
    CommitRefused,
    CommitUnknown,
    HeadraceError,
    RecordRefused,
)
from engine.kafka import protocol
from engine.kafka.client import FUTURE_MS, back_off, connect
from engine.kafka.records import CODECS, Encoded, encode_batches
from engine.record import TP
from engine.stages import charged

if TYPE_CHECKING:
    from collections.abc import Awaitable, Collection, Iterable

    from aiokafka.client import AIOKafkaClient

    from engine.clock import Clock
    from engine.config import Config
    from engine.record import Headers, Output

PRODUCE_TIMEOUT_MS = 20_000


class Refused(Exception):
    """A broker answered with an error code that does not pass.

    Attributes:
        tp: of the partition that it is about, if it is about one.
        index: of the record that it is about, among all that go to this partition.
    """

    def __init__(
        self, what: str, code: int, tp: TP | None = None, index: int | None = None
    ) -> None:
        self.code = code
        self.tp = tp
        self.index = index
        super().__init__(f"{what}: {protocol.name_of(code)}")

    def as_error(self) -> HeadraceError:
        """Return what it means to whoever commits; a code that nobody foresaw is final."""
        if self.code in protocol.FENCED:
            return CommitRefused(f"this worker is not the owner any more ({self})")
        if self.code in protocol.PRODUCER_LOST:
            return CommitUnknown(f"the broker has given the transaction up ({self})")
        if self.code in protocol.DENIED:
            about_topic = self.code == protocol.TOPIC_AUTHORIZATION_FAILED
            topics = [self.tp.topic] if self.tp is not None and about_topic else []
            what = f"on topic {topics[0]}" if topics else "to commit"
            return AccessDenied(f"no permission {what} ({self}): grant it", topics)
        reason = f"{self.tp} does not take it ({protocol.name_of(self.code)})"
        return RecordRefused(
            f"{self}; nothing of this transaction is visible",
            tp=self.tp, index=self.index, reason=reason,
        )  # fmt: skip


Halve = Callable[[TP, Encoded], list[Encoded]]
"""Encodes the records of a batch again, in two."""


class Producing:
    """A client's produce requests.

    Args:
        transactional_id: of the transaction that the batches belong to, if they belong to one.
        halve: for a batch that a broker refuses as a whole; None: there is nothing to halve.
    """

    def __init__(
        self,
        client: AIOKafkaClient,
        transactional_id: str | None = None,
        halve: Halve | None = None,
    ) -> None:
        self._client = client
        self._transactional_id = transactional_id
        self._halve = halve

    async def send(self, batches: dict[TP, list[Encoded]]) -> dict[TP, int]:
        """Send all batches; return, per partition, the offset after its last record.

        A batch that is refused goes out in halves, and so on, until it passes (it was too large)
        or holds one record.

        Raises:
            Refused: a broker does not take a record.
            KafkaError, OSError: a request got no answer.
        """
        ends: dict[TP, int] = {}
        for topic in {tp.topic for tp in batches}:
            await self._client._wait_on_metadata(topic)
        queues = {tp: deque(rows) for tp, rows in batches.items() if rows}
        attempt = 0
        while queues:
            taken, refused = await self._round({tp: queue[0] for tp, queue in queues.items()})
            for tp, code in refused.items():
                batch = queues[tp].popleft()
                if code not in protocol.RECORD_REFUSED or batch.count == 1 or not self._halve:
                    raise Refused(f"produce to {tp}", code, tp, batch.start)
                queues[tp].extendleft(reversed(self._halve(tp, batch)))
            moved = len(taken) + len(refused) == len(queues)
            for tp in taken:
                queues[tp].popleft()
                if not queues[tp]:
                    del queues[tp]
            ends |= taken
            if moved:
                attempt = 0
            else:
                await back_off(attempt)
                attempt += 1
                await self._client.force_metadata_update()
        return ends

    async def _round(self, batches: dict[TP, Encoded]) -> tuple[dict[TP, int], dict[TP, int]]:
        """Send one batch to each partition that has a leader.

        Returns the ends of those that were taken, and the error codes of those that never will be.
        """
        by_node: dict[int, dict[TP, Encoded]] = defaultdict(dict)
        for tp, batch in batches.items():
            node = self._client.cluster.leader_for_partition(tp)
            if node is not None and node != -1:
                by_node[node][tp] = batch
        ends: dict[TP, int] = {}
        refused: dict[TP, int] = {}
        answers = await together(
            charged("produce", partial(self._produce, node, part)) for node, part in by_node.items()
        )
        for answer in answers:
            for topic, partitions in answer.topics:
                for partition, code, offset, *_ in partitions:
                    tp = TP(topic, partition)
                    if code == protocol.NONE:
                        ends[tp] = offset + batches[tp].count
                    elif code not in protocol.TRY_LEADER_AGAIN:
                        refused[tp] = code
        return ends, refused

    async def _produce(self, node: int, batches: dict[TP, Encoded]) -> Any:
        topics: dict[str, list[tuple[int, bytes]]] = defaultdict(list)
        for tp, batch in batches.items():
            topics[tp.topic].append((tp.partition, batch.data))
        request = ProduceRequest(
            transactional_id=self._transactional_id,
            required_acks=-1,
            timeout=PRODUCE_TIMEOUT_MS,
            topics=list(topics.items()),
        )
        return await crashpoint.sent("produce-sent", self._client.send(node, request))


class Connected:
    """What all kinds of outlet have: a connection, and sending outside of transactions."""

    per_task = False

    def __init__(self, config: Config, clock: Clock | None = None) -> None:
        self._config = config
        self._clock = clock or SystemClock()
        self._codec = CODECS[config.compression]
        self._client: AIOKafkaClient | None = None

    async def _connect(self) -> None:
        self._client = await connect(self._config, "producer")

    def _encode(self, rows: list[Output], **how: Any) -> list[Encoded]:
        return encode_batches(rows, self._codec, latest_ms=self._latest_ms(), **how)

    async def own(self, tasks: Collection[str]) -> None:
        """The one producer is every task's: nothing to do."""

    def _latest_ms(self) -> int:
        """Return the latest timestamp (ms) that a record may go out with."""
        return self._clock.now_ms() + FUTURE_MS

    async def close(self) -> None:
        """Drop the connections. A transaction that is open stays so until somebody opens anew."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):
                await client.close()

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        timestamp: int | None,
        headers: Headers,
        partition: int | None,
    ) -> None:
        """Send one record outside of any transaction (timers, commands, pages)."""
        if self._client is None:
            raise BrokerError(f"could not send to {topic}: the connection is being renewed")
        rows: list[Output] = [(key, value, timestamp or 0, headers)]
        batches = encode_batches(rows, 0, latest_ms=self._latest_ms())
        try:
            await Producing(self._client).send({TP(topic, partition or 0): batches})
        except Refused as error:
            raise error.as_error() from error
        except (KafkaError, OSError) as error:
            raise BrokerError(f"could not send to {topic}: {error!r}") from error


async def together(calls: Iterable[Awaitable[Any]]) -> list[Any]:
    """Await all calls together; the first error is raised as itself, after the others ended."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results
