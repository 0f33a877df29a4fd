"""Topics: how many partitions they have, and creating them as a production cluster wants them."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, NamedTuple

from aiokafka import TopicPartition
from aiokafka.admin import NewTopic
from aiokafka.errors import KafkaError

from engine.errors import BrokerError, ConfigError
from engine.kafka import protocol
from engine.kafka.client import CONNECT_S, make_admin, unreachable
from engine.record import TP

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from engine.config import Config
    from engine.topic import Topic

_EXISTS = 36
_UNKNOWN = 3
VISIBLE_TIMEOUT_S = 30.0


class TopicInfo(NamedTuple):
    """What the cluster says of a topic."""

    name: str
    partitions: int
    replicas: int


class KafkaAdmin:
    """See :class:`engine.edges.Admin`."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._admin: Any = None

    async def _connected(self) -> Any:
        if self._admin is None:
            admin = make_admin(self._config, "admin")
            try:
                async with asyncio.timeout(CONNECT_S):
                    await admin.start()
            except (KafkaError, OSError) as error:
                with contextlib.suppress(Exception):
                    await admin.close()
                raise unreachable(self._config, error) from error
            self._admin = admin
        return self._admin

    async def _metadata(self) -> Any:
        admin = await self._connected()
        try:
            return await admin._client.fetch_all_metadata()
        except KafkaError as error:
            raise BrokerError(f"no broker tells what topics there are: {error!r}") from error

    async def partitions(self, topics: Collection[str]) -> dict[str, int]:
        """Return how many partitions each topic has; unknown topics are absent."""
        metadata = await self._metadata()
        found = {topic: metadata.partitions_for_topic(topic) for topic in topics}
        return {topic: len(numbers) for topic, numbers in found.items() if numbers}

    async def topic_ids(self, topics: Collection[str]) -> dict[str, str]:
        """Return the ids of those topics that exist (KIP-516).

        Raises:
            BrokerError: nobody answers.
        """
        if self._config.guarantee == "at_least_once":
            return {}  # a broker that may know no ids
        admin = await self._connected()
        client = admin._client
        try:
            answer = await client.send(client.get_random_node(), protocol.Metadata(topics))
        except (KafkaError, OSError) as error:
            raise BrokerError(f"no broker tells what topics there are: {error!r}") from error
        mask = (1 << 64) - 1
        return {
            name: f"{high & mask:016x}{low & mask:016x}"
            for code, name, high, low, *_ in answer.topics
            if code == protocol.NONE
        }

    async def describe(self) -> list[TopicInfo]:
        """Return every topic of the cluster, sorted by name; internal ones left out."""
        metadata = await self._metadata()
        rows = []
        for name in sorted(metadata.topics(exclude_internal_topics=True)):
            numbers = metadata.partitions_for_topic(name) or ()
            replicas = metadata._partitions[name][0].replicas if numbers else ()
            rows.append(TopicInfo(name, len(numbers), len(replicas)))
        return rows

    async def create(self, topics: Iterable[Topic]) -> list[str]:
        """Create the topics that do not exist yet; return the names of those created.

        Raises:
            ConfigError: the cluster refuses one; the message names the topic and the reason.
        """
        metadata = await self._metadata()
        known = metadata.topics(exclude_internal_topics=False)
        wanted: dict[str, Topic] = {}
        for topic in topics:
            wanted.setdefault(topic.name, topic)  # a topic may be named twice: the first counts
        missing = [topic for name, topic in wanted.items() if name not in known]
        if not missing:
            return []
        brokers = len(metadata.brokers())
        admin = await self._connected()
        try:
            answer = await admin.create_topics([self._new(topic, brokers) for topic in missing])
        except (KafkaError, OSError) as error:
            raise BrokerError(f"could not create topics: {error!r}") from error
        for name, code, *reason in answer.topic_errors:
            if code not in {0, _EXISTS}:
                why = next((text for text in reason if text), f"Kafka error {code}")
                raise ConfigError(f"the cluster does not create topic {name}: {why}")
        await self._visible([topic.name for topic in missing])
        return [topic.name for topic in missing]

    def _new(self, topic: Topic, brokers: int) -> Any:
        """Return what to ask for: the topic's own settings, else the app's, within the cluster."""
        config, own = self._config, topic.config
        replicas = min(own.replicas or config.replicas, brokers)
        settings = {
            "min.insync.replicas": str(min(config.min_insync, replicas)),
            "segment.ms": str(config.segment_ms),
            "compression.type": "producer",
            "cleanup.policy": "compact" if own.compacted else "delete",
        }
        if not own.compacted:
            kept = config.retention_ms if own.retention_ms is None else own.retention_ms
            settings["retention.ms"] = str(kept)
        settings |= own.extra
        return NewTopic(topic.name, own.partitions or config.partitions, replicas,
                        topic_configs=settings)  # fmt: skip

    async def delete(self, names: Collection[str]) -> None:
        """Delete topics and what they hold; wait until they are gone.

        Raises:
            BrokerError: the cluster does not delete one.
        """
        admin = await self._connected()
        try:
            answer = await admin.delete_topics(list(names))
        except (KafkaError, OSError) as error:
            raise BrokerError(f"could not delete topics: {error!r}") from error
        for name, code, *_ in answer.topic_error_codes:
            if code not in {0, _UNKNOWN}:
                raise BrokerError(f"the cluster does not delete topic {name}: Kafka error {code}")
        try:
            async with asyncio.timeout(VISIBLE_TIMEOUT_S):
                while await self.partitions(names):
                    await asyncio.sleep(0.05)
        except TimeoutError as error:
            raise BrokerError(f"deleted topics do not go away: {', '.join(names)}") from error

    async def committed(self, group: str, tps: Collection[TP]) -> dict[TP, int]:
        """Return a group's committed offsets; none while its coordinator is coming up.

        The partitions are named: not every broker lists those of a group by itself.
        """
        admin = await self._connected()
        try:
            keys = [TopicPartition(*tp) for tp in tps]
            found = await admin.list_consumer_group_offsets(group, partitions=keys)
        except (KafkaError, OSError) as error:
            if getattr(error, "retriable", False):
                return {}
            raise BrokerError(f"could not read the offsets of group {group}: {error!r}") from error
        return {TP(*tp): at.offset for tp, at in found.items() if at.offset >= 0}

    async def _visible(self, names: list[str]) -> None:
        """Wait until the cluster's metadata has the new topics."""
        try:
            async with asyncio.timeout(VISIBLE_TIMEOUT_S):
                while len(await self.partitions(names)) < len(names):
                    await asyncio.sleep(0.05)
        except TimeoutError as error:
            raise BrokerError(f"new topics do not show up: {', '.join(names)}") from error

    async def close(self) -> None:
        """Release the connection."""
        admin, self._admin = self._admin, None
        if admin is not None:
            await admin.close()
