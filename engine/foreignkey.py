"""Foreign-key joins: the left table's rows name the right table's rows that they belong to.

The two sides lie in different partitions, so two internal topics go between them, and an agent of
the engine's own sits at the right side::

    LEFT ──► the join ──► …-subscriptions ──┐
               ▲  │                         ▼
               │  └► your agent   RIGHT ─► …-right
               └───────── …-answers ────────┘

What is said on them, and why nothing old overtakes what is new, is in :mod:`tables.foreignkey`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from engine.context import context_for
from engine.contracts.contract import Contract
from engine.errors import ConfigError
from engine.move import key_function
from engine.operator import Operator
from engine.table import TableHandle
from engine.tablejoins import Side, TableJoin, topic_of, values_of
from engine.topic import DEAD_LETTER_BYTES, Topic, TopicConfig
from tables.codec import value_codec
from tables.foreignkey import Answer, How, LeftPartition, RightPartition, Subscription

if TYPE_CHECKING:
    from engine.agent import Agent
    from engine.operator import Make
    from engine.outbox import Outbox
    from tables.store import Store


class ForeignKeyJoin(Operator):
    """A foreign-key join of two tables that are topics.

    What comes out is keyed by the left row's key. Left and right topic need not have the same
    number of partitions, and may be one: employees and their managers. Keys must have been put into
    the right topic's partitions as Kafka's own clients do it (murmur2), since that is how foreign
    keys are sent to them.

    Args:
        left, right: the topics that the tables are (or tables declared with ``source=``); their
            contracts must allow tombstones.
        on: the foreign key: a field of the left value (``Order.product_id``), a field's name, or a
            function of the value. It is encoded as the right topic's keys are; None: the row
            belongs to no right row.
        how: ``inner``: left rows that have a right row; ``left``: all left rows, with None for a
            right row that is not there.

    Raises:
        ConfigError: ``how`` is neither, or a side is no table that is a topic.
    """

    def __init__(
        self, name: str, left: Side, right: Side, *, on: Any, how: How = "inner", **options: Any
    ) -> None:
        if how not in {"inner", "left"}:
            raise ConfigError(f"foreign-key join {name!r}: how={how!r} is neither inner nor left")
        self._left, self._right = topic_of(left, name), topic_of(right, name)
        super().__init__(name, [self._left], **options)
        self.how = how
        self._sent_to: tuple[Topic, ...] = ()
        self._key_of: Callable[[Any], Any] = key_function(on)

    @property
    def outputs(self) -> tuple[Topic, ...]:
        """The topic that it tells the right side on."""
        return self._sent_to

    def name_topics(self, app_id: str) -> None:
        """Name the topics in between, and make the agent that sits at the right side."""
        if self.agents:
            return
        subscriptions = _internal(f"{app_id}-{self.name}-subscriptions", Subscription)
        answers = _internal(f"{app_id}-{self.name}-answers", Answer)
        self._sent_to = (subscriptions,)
        self.inputs = (self._left, answers)
        self.sides = {self._left.name: 0, answers.name: 1}
        right = RightSide(f"{self.name}-right", cache_entries=self.cache_entries)
        self.agents = (_at_the_right(right, subscriptions, self._right, answers),)

    def sender(
        self, outbox: Outbox, partition: int
    ) -> Callable[[bytes, bytes, int, int, bool, int], None]:
        """Return what sends a subscription."""
        topic = self._sent_to[0]
        lane = outbox.lane(topic.name)
        rows, partitioner, encode = lane.rows, lane.partitioner, topic.contract.encode

        def send(
            foreign_key: bytes,
            key: bytes,
            version: int,
            wants: int,
            ends: bool,  # noqa: FBT001
            ts: int,
        ) -> None:
            raw = encode(Subscription(key, version, wants, ends, partition))
            rows[partitioner[foreign_key]].append((foreign_key, raw, ts, ()))

        return send

    def open(self, store: Store, emit: Any) -> LeftPartition:
        """Return this join's partition on a task's store."""
        key_of, encode_key = self._key_of, self._right.encode_key

        def foreign_key(value: Any) -> bytes | None:
            return encode_key(key_of(value))

        return LeftPartition(
            self.name,
            store,
            how=self.how,
            codecs=(values_of(self._left), values_of(self._right)),
            foreign_key=foreign_key,
            send=emit,
            cache_entries=self.cache_entries,
        )


class RightSide(TableHandle):
    """The right side's state: its rows, and who has subscribed to them."""

    def open(self, store: Store, emit: Any) -> RightPartition:
        """Return this table's partition on a task's store."""
        return RightPartition(self.name, store, cache_entries=self.cache_entries)


def _internal(name: str, kind: type[msgspec.Struct]) -> Topic:
    """Return a topic of MessagePack between the sides; a record may carry a whole right value."""
    codec = value_codec(kind)
    contract = Contract(
        name=name, value_type=kind, key_type=bytes, decode=codec.decode, encode=codec.encode
    )
    config = TopicConfig(extra={"max.message.bytes": str(DEAD_LETTER_BYTES)})
    return Topic(name, contract, config, internal=True)


def _at_the_right(side: RightSide, subscriptions: Topic, right: Topic, answers: Topic) -> Agent:
    """Return the agent that keeps subscriptions and answers them."""
    from engine.agent import Agent  # noqa: PLC0415  (a cycle otherwise)

    async def answer(events: AsyncIterator[Any]) -> None:
        async for event in events:
            context = context_for(side.name)
            run, i = context.run, context.index
            assert run is not None
            foreign_key, ts = run.keys[i], run.times[i]
            if foreign_key is None:
                continue
            partition: RightPartition = context.tables[side.name]
            rows, encode = context.outbox.lane(answers.name).rows, answers.contract.encode
            if run.tp.topic == subscriptions.name:
                answered = partition.subscribe(foreign_key, event, ts)
                if answered is not None:
                    reply, ts = answered
                    rows[event.partition].append((event.key, encode(reply), ts, ()))
            else:
                for key, number, reply in partition.update(foreign_key, run.values[i], ts):
                    rows[number].append((key, encode(reply), ts, ()))

    return Agent(
        answer, [subscriptions, right], name=side.name, sinks=[answers], tables=[side],
        on_error="stop",
    )  # fmt: skip


def table_join_with(right: Any, on: Any, options: dict[str, Any]) -> tuple[str, Make]:
    """Return name and maker of the operator of ``stream.table_join(right, ...)``."""
    name = getattr(right, "name", "")

    def make(whole: str, own: Topic) -> Operator:
        if on is None:
            return TableJoin(whole, own, right, **options)
        return ForeignKeyJoin(whole, own, right, on=on, **options)

    return f"table-join-{name}", make
