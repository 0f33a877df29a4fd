"""Sending record batches to the leaders of their partitions, and looking at every answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from aiokafka.errors import KafkaError
from aiokafka.protocol.produce import ProduceRequest

from engine import crashpoint
from engine.clock import SystemClock
from engine.errors import BrokerError, RecordRefused
from engine.kafka import protocol
from engine.kafka.client import FUTURE_MS, back_off, connect
from engine.kafka.records import CODECS, Encoded, encode_batches
from engine.record import TP

if TYPE_CHECKING:
    from collections.abc import Awaitable, Collection, Iterable

    from aiokafka.client import AIOKafkaClient

    from engine.clock import Clock
    from engine.config import Config
    from engine.record import Headers, Output

PRODUCE_TIMEOUT_MS = 20_000


class Refused(Exception):
    """A broker answered with an error code that does not pass."""

    def __init__(self, what: str, code: int) -> None:
        self.code = code
        super().__init__(f"{what}: Kafka error {code}")


class Producing:
    """A client's produce requests.

    Args:
        transactional_id: of the transaction that the batches belong to, if they belong to one.
    """

    def __init__(self, client: AIOKafkaClient, transactional_id: str | None = None) -> None:
        self._client = client
        self._transactional_id = transactional_id

    async def send(self, batches: dict[TP, list[Encoded]]) -> dict[TP, int]:
        """Send all batches; return, per partition, the offset after its last record.

        Raises:
            Refused: a broker does not take a batch.
            KafkaError, OSError: a request got no answer.
        """
        ends: dict[TP, int] = {}
        for topic in {tp.topic for tp in batches}:
            await self._client._wait_on_metadata(topic)
        for number in range(max(map(len, batches.values()), default=0)):
            waiting = {tp: rows[number] for tp, rows in batches.items() if number < len(rows)}
            attempt = 0
            while waiting:
                taken = await self._round(waiting)
                ends |= taken
                waiting = {tp: batch for tp, batch in waiting.items() if tp not in taken}
                if waiting:
                    await back_off(attempt)
                    attempt += 1
                    await self._client.force_metadata_update()
        return ends

    async def _round(self, batches: dict[TP, Encoded]) -> dict[TP, int]:
        """Send one batch to each partition that has a leader; return the ends of those taken."""
        by_node: dict[int, dict[TP, Encoded]] = defaultdict(dict)
        for tp, batch in batches.items():
            node = self._client.cluster.leader_for_partition(tp)
            if node is not None and node != -1:
                by_node[node][tp] = batch
        ends: dict[TP, int] = {}
        answers = await together(self._produce(node, part) for node, part in by_node.items())
        for answer in answers:
            for topic, partitions in answer.topics:
                for partition, code, offset, *_ in partitions:
                    tp = TP(topic, partition)
                    if code == protocol.NONE:
                        ends[tp] = offset + batches[tp].count
                    elif code not in protocol.TRY_LEADER_AGAIN:
                        raise Refused(f"produce to {tp}", code)
        return ends

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
            raise RecordRefused(str(error)) from error
        except (KafkaError, OSError) as error:
            raise BrokerError(f"could not send to {topic}: {error!r}") from error


async def together(calls: Iterable[Awaitable[Any]]) -> list[Any]:
    """Await all calls together; the first error is raised as itself, after the others ended."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results
