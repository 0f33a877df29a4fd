"""The consumer group's side on Kafka: membership, polling, positions.

Positions are never left to aiokafka: on assignment every partition is parked (seek to 0, paused),
and the engine seeks it once the committed position is known to be stable and the task's tables are
restored. There is no ``auto.offset.reset``: a position that the broker does not have is an error
with a name, not a jump.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.client import ConnectionGroup
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    IllegalStateError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
)
from aiokafka.structs import OffsetAndMetadata

from engine.edges import Assigned, Position
from engine.errors import AccessDenied, BrokerError, ConfigError, InputLost
from engine.kafka import protocol, static
from engine.kafka.client import back_off, make_consumer, release, unreachable
from engine.kafka.producer import KafkaOutlet, Membership, transactional_id, unsigned
from engine.kafka.records import Packed
from engine.record import TP, Fetched
from engine.stages import stages

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence

    from engine.config import Config
    from engine.kafka.assignor import TaskAssignor

log = logging.getLogger(__name__)

POSITIONS_TIMEOUT_S = 60.0
PATIENT_S = 1.5
"""A commit of a worker that lives has landed by then."""


class _Listener(ConsumerRebalanceListener):
    """Passes aiokafka's callbacks on. They must not raise: aiokafka would swallow it."""

    def __init__(self, source: KafkaSource) -> None:
        self._source = source

    async def on_partitions_revoked(self, revoked: Any) -> None:
        """Before a rebalance, or after having been thrown out of the group."""
        await self._source._revoked()

    def on_partitions_assigned(self, assigned: Any) -> None:
        """After it."""
        self._source.park(assigned)


class KafkaSource:
    """See :class:`engine.edges.Source`.

    Args:
        assignor: a class of this consumer's own.
        instance: this worker's name in the group (static membership).
    """

    def __init__(self, config: Config, assignor: type[TaskAssignor], instance: str) -> None:
        self._config = config
        self._instance = instance
        self._assignor = assignor
        self._fenced_s = -static.TWICE_S
        self._active: frozenset[TP] = frozenset()
        self._waiter: asyncio.Future[Any] | None = None
        self._awake = False
        self._consumer: Any = None
        self._revoked: Callable[[], Awaitable[None]]
        self._assigned: Callable[[Assigned], None]

    # -- the group ---------------------------------------------------------------------------

    async def start(
        self,
        topics: Collection[str],
        *,
        revoked: Callable[[], Awaitable[None]],
        assigned: Callable[[Assigned], None],
    ) -> None:
        """Join the group."""
        config = self._config
        self._revoked, self._assigned = revoked, assigned
        self._consumer = make_consumer(
            config,
            "consumer",
            group_id=config.id,
            group_instance_id=self._instance,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            session_timeout_ms=config.session_timeout_ms,
            heartbeat_interval_ms=min(3_000, max(200, config.session_timeout_ms // 10)),
            rebalance_timeout_ms=max(30_000, config.session_timeout_ms),
            max_poll_interval_ms=300_000,
            max_partition_fetch_bytes=config.fetch_bytes,
            fetch_max_wait_ms=100,
            partition_assignment_strategy=(self._assignor,),
        )
        try:
            await self._consumer.start()
        except (KafkaError, OSError) as error:
            await self.close()
            raise unreachable(config, error) from error
        static.name_heartbeats(self._consumer._coordinator)
        self._consumer.subscribe(sorted(topics), listener=_Listener(self))

    def park(self, assigned: Iterable[Any]) -> None:
        """Hold new partitions still until the engine seeks them; tell the engine of them."""
        if self._consumer is None:
            return  # we are leaving
        for tp in assigned:
            self._consumer.seek(tp, 0)
        if assigned:
            self._consumer.pause(*assigned)
        active = self._active = frozenset(TP(tp.topic, tp.partition) for tp in assigned)
        standby = frozenset(TP(*tp) for tp in self._assignor.standbys())
        self._assigned(Assigned(active, standby, self.membership()))
        self.wake()

    def membership(self) -> Membership:
        """Return generation and member id as they are now."""
        group = self._consumer._coordinator
        return Membership(group.generation, group.member_id, group._group_instance_id)

    async def close(self) -> None:
        """Leave the group; a worker that was given a name is expected back, and keeps its place."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            if not self._config.instance:
                await static.leave(consumer._coordinator)
            await release(consumer)

    # -- records -----------------------------------------------------------------------------

    async def poll(self, timeout_ms: int, *, full: Collection[TP]) -> Sequence[Fetched]:
        """Return what has come; wait up to ``timeout_ms`` for something to come."""
        subscription = self._consumer._subscription
        with subscription.fetch_context():
            came = self._drain(full)
            self._check_group()
            if came or self._awake or timeout_ms == 0:
                self._awake = False
                return came
            self._waiter = self._consumer._fetcher._create_fetch_waiter()
            await asyncio.wait([self._waiter], timeout=timeout_ms / 1000)
            if self._waiter.done():
                with contextlib.suppress(KafkaError):
                    self._waiter.result()
            else:
                self._waiter.cancel()
            self._waiter = None
            self._awake = False
            return self._drain(full)

    def _check_group(self) -> None:
        """Raise what went wrong with the membership, once it is on its way to being mended.

        A heartbeat that was refused has ended for good, and aiokafka would only tell of it again
        and again: joining anew begins another one.
        """
        coordinator = self._consumer._coordinator
        try:
            coordinator.check_errors()
        except (GroupAuthorizationFailedError, TopicAuthorizationFailedError) as error:
            coordinator.request_rejoin()
            raise AccessDenied(
                f"no permission to be a member of group {self._config.id} ({error!r}): grant READ "
                "on the group, and READ and DESCRIBE on its topics"
            ) from error
        except KafkaError as error:
            if static.is_fenced(error):
                now = asyncio.get_running_loop().time()
                if now - self._fenced_s < static.TWICE_S:
                    raise ConfigError(static.fenced(self._config, self._instance)) from error
                self._fenced_s = now
                log.warning("the group has another member under our name; joining it anew")
                coordinator.reset_generation()
                return
            coordinator.request_rejoin()
            raise BrokerError(f"could not stay in the group: {error!r}") from error

    def wake(self) -> None:
        """Make a poll that waits return at once, or the next one not wait."""
        self._awake = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _drain(self, full: Collection[TP]) -> list[Fetched]:
        """Take what aiokafka's fetcher has ready, packed (in place of its ``getmany``)."""
        fetcher = self._consumer._fetcher
        subscription = self._consumer._subscription
        if subscription.reassignment_in_progress:
            return []
        came: list[Fetched] = []
        for key in list(fetcher._records):
            tp = TP(key.topic, key.partition)
            failed = type(fetcher._records[key]) is not FetchResult
            if tp in full or (failed and came):
                continue  # it is raised by the next poll: what is drained must reach its tasks
            fetched = fetcher._records.pop(key)
            fetcher._notify(fetcher._wait_consume_future)
            if failed:
                self._raise(tp, fetched)
            elif fetched.check_assignment(key) and fetched.has_more():
                before = stages.switch("poll")
                packed = Packed(tp, fetched._partition_records)
                stages.switch(before)
                fetched._assignment.state_value(key).consumed_to(packed.next_offset)
                came.append(packed)
        return came

    def _raise(self, tp: TP, failed: Any) -> None:
        try:
            failed.check_raise()
        except NoOffsetForPartitionError:
            return  # parked: the engine has not sought it yet
        except OffsetOutOfRangeError as error:
            raise InputLost(
                tp, f"{tp}: the broker does not have the position that is to be read next"
            ) from error
        except TopicAuthorizationFailedError as error:
            raise AccessDenied(
                f"no permission to read topic {tp.topic}: grant READ and DESCRIBE on it",
                [tp.topic],
            ) from error
        except KafkaError as error:
            raise BrokerError(f"{tp}: {error!r}") from error

    def ask_for(self, partition_bytes: int) -> None:
        """Ask for so many bytes of a partition at a time, from now."""
        self._consumer._fetcher._max_partition_fetch_bytes = partition_bytes

    def seek(self, tp: TP, offset: int) -> None:
        """Read ``tp`` from ``offset`` on, from now."""
        key = TopicPartition(*tp)
        with contextlib.suppress(IllegalStateError):  # taken from us: its task is about to go
            self._consumer.seek(key, offset)
            self._consumer.resume(key)

    def end(self, tp: TP) -> int | None:
        """Return the last known end for a reader of committed records."""
        assignment = self._consumer._subscription.subscription.assignment
        if assignment is None:
            return None
        state = assignment._tp_state.get(TopicPartition(*tp))
        if state is None:
            return None
        end: int | None = state.highwater if state.lso is None or state.lso < 0 else state.lso
        return end

    # -- positions ---------------------------------------------------------------------------

    async def positions(self, tps: Collection[TP]) -> dict[TP, Position | None]:
        """Return the committed positions, waiting for transactions that are still open."""
        try:
            async with asyncio.timeout(POSITIONS_TIMEOUT_S):
                if self._config.guarantee == "exactly_once":
                    return await self._stable_positions(tps)
                return await self._plain_positions(tps)
        except (TimeoutError, KafkaError, OSError) as error:
            raise BrokerError(f"could not read the committed positions: {error!r}") from error

    async def _stable_positions(self, tps: Collection[TP]) -> dict[TP, Position | None]:
        """Ask with OffsetFetch v7 until no transaction on the partitions is open.

        One that stays open is a dead worker's, most likely. The broker would end it when its time
        is up; whoever takes the dead worker's place ends it at once, and knows whose it is from
        the offset before.
        """
        coordinator = self._consumer._coordinator
        loop = asyncio.get_running_loop()
        patient_until = loop.time() + PATIENT_S
        attempt = 0
        while True:
            found, codes = await self._fetch_offsets(tps, stable=True)
            every = set(codes.values()) - {protocol.NONE}
            if not every:
                return {tp: at for tp, (_, at) in found.items()}
            if every & protocol.COORDINATOR_MOVED:
                coordinator.coordinator_dead()
            if every - protocol.TRY_COORDINATOR_AGAIN - {protocol.UNSTABLE_OFFSET_COMMIT}:
                raise BrokerError(f"could not read the committed positions: Kafka errors {every}")
            heirs = self._config.producers == "worker"  # a task's own producer has done it
            ours = self._active.intersection(tps) if heirs else ()  # a standby is no heir
            unstable = [tp for tp in ours if codes.get(tp) == protocol.UNSTABLE_OFFSET_COMMIT]
            if unstable and loop.time() > patient_until:
                patient_until = loop.time() + 4 * PATIENT_S
                await self._end_transactions(unstable)
            await back_off(attempt, first_s=0.01)
            attempt += 1

    async def _fetch_offsets(
        self, tps: Collection[TP], *, stable: bool
    ) -> tuple[dict[TP, tuple[str, Position | None]], dict[TP | None, int]]:
        """Return what is committed, by whom, and the answer's error codes (None: of the whole)."""
        coordinator = self._consumer._coordinator
        topics: dict[str, list[int]] = {}
        for tp in tps:
            topics.setdefault(tp.topic, []).append(tp.partition)
        asked: list[tuple[str, list[int], dict[int, bytes]]] = [
            (topic, partitions, {}) for topic, partitions in topics.items()
        ]
        await coordinator.ensure_coordinator_known()
        answer = await self._consumer._client.send(
            coordinator.coordinator_id,
            protocol.OffsetFetch(self._config.id, asked, stable),
            group=ConnectionGroup.COORDINATION,
        )
        found: dict[TP, tuple[str, Position | None]] = {}
        codes: dict[TP | None, int] = {None: answer.error_code}
        for topic, partitions, _ in answer.topics:
            for partition, offset, _, metadata, code, _ in partitions:
                tp = TP(topic, partition)
                writer, notes = unsigned(metadata or "")
                codes[tp] = code
                found[tp] = writer, None if offset < 0 else Position(offset, notes)
        return found, codes

    async def _end_transactions(self, tps: Collection[TP]) -> None:
        """End what is open on partitions: it is the transaction of who committed there last."""
        found, _ = await self._fetch_offsets(tps, stable=False)
        ours = transactional_id(self._config, self._instance)
        for writer in sorted({writer for writer, _ in found.values()} - {"", ours}):
            log.info("ending the transaction that %s has left open", writer)
            outlet = self._outlet_of(writer)
            try:
                await outlet.open()
            except (BrokerError, AccessDenied) as error:
                log.warning("could not end the transaction of %s: %s", writer, error)
            finally:
                await outlet.close()

    def _outlet_of(self, writer: str) -> KafkaOutlet:
        return KafkaOutlet(self._config, writer)

    async def _plain_positions(self, tps: Collection[TP]) -> dict[TP, Position | None]:
        committed = await self._consumer._coordinator.fetch_committed_offsets(
            [TopicPartition(*tp) for tp in tps]
        )
        found = {
            TP(tp.topic, tp.partition): Position(at.offset, at.metadata or "")
            for tp, at in committed.items()
            if at.offset >= 0
        }
        return {tp: found.get(tp) for tp in tps}

    async def commit_plain(self, positions: dict[TP, Position]) -> None:
        """Commit positions outside of a transaction, as a member of the group."""
        await self._consumer.commit({
            TopicPartition(*tp): OffsetAndMetadata(at.offset, at.metadata)
            for tp, at in positions.items()
        })  # fmt: skip
