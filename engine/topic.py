"""A topic as an app declares it: its name, its contract, and how to create it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from engine.contracts.contract import Contract
from engine.errors import ConfigError
from engine.record import Run
from tables.codec import RAW_KEYS, key_codec

if TYPE_CHECKING:
    from engine.contracts.contract import Checked
    from engine.record import Batch


NAME_CHARS = 249
"""Kafka's limit."""
_NAME = re.compile(rf"(?!\.{{1,2}}$)[a-zA-Z0-9._-]{{1,{NAME_CHARS}}}")

DEAD_LETTER_BYTES = 4 << 20
"""A dead letter is its record and what is said about it: it must fit where the record did."""


class TopicConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How a topic is created. ``None``: the app's default (see :mod:`engine.config`).

    Attributes:
        partitions: how many; inputs that are joined need the same number.
        replicas: copies; None takes what the cluster has brokers for, at most 3.
        retention_ms: how long records are kept; -1 for ever.
        compacted: keep the last record of each key instead.
        extra: further broker settings, as Kafka names them.
    """

    partitions: int | None = None
    replicas: int | None = None
    retention_ms: int | None = None
    compacted: bool = False
    extra: dict[str, str] = {}


class Topic:
    """A topic with its contract. What Faust calls a channel: a place to read from and send to."""

    def __init__(
        self,
        name: str,
        contract: Contract,
        config: TopicConfig | None = None,
        *,
        internal: bool = False,
    ) -> None:
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"topic {name!r}: use 1 to {NAME_CHARS} of letters, digits, '.', '_' and '-'"
            )
        self.name = name
        self.contract = contract
        self.config = config or TopicConfig()
        self.internal = internal
        self.fitted = False
        self.key = RAW_KEYS if contract.key_type is None else key_codec(contract.key_type)
        self.send_outside: Any = None  # set by the app: how to send when no agent is running

    def __repr__(self) -> str:
        return f"<Topic {self.name} {self.contract.name} v{self.contract.version}>"

    @property
    def dead_letters(self) -> str:
        """The name of the topic for what breaks the contract."""
        return f"{self.name}-dlq"

    def dead_letter_topic(self, partitions: int) -> Topic:
        """Return the topic for what breaks the contract: bytes as they came, kept as long."""
        name = self.dead_letters
        config = TopicConfig(
            retention_ms=self.config.retention_ms,
            extra={"max.message.bytes": str(DEAD_LETTER_BYTES)},
        )
        letters = Topic(name, Contract.of(name, bytes, null_values=True), config, internal=True)
        return letters.sized(partitions)

    def sized(self, partitions: int) -> Topic:
        """Set how many partitions it must have to fit others; return it."""
        self.fitted = True
        self.config = msgspec.structs.replace(self.config, partitions=partitions)
        return self

    def encode_key(self, key: Any) -> bytes | None:
        """Return the bytes of a key; bytes are taken as they are."""
        return key if key is None or type(key) is bytes else self.key.encode(key)

    def encode_value(self, value: Any) -> bytes | None:
        """Return the bytes of a value; None is a tombstone, bytes are taken as they are."""
        return value if value is None or type(value) is bytes else self.contract.encode(value)

    def decode(self, batch: Batch) -> tuple[Run, Checked]:
        """Decode and check a whole batch; the run holds the good records."""
        checked = self.contract.check(batch.keys, batch.values, batch.headers, batch.largest)
        columns = (batch.offsets, batch.timestamps, batch.keys, batch.values, batch.headers)
        if checked.broken:  # few, nearly always: taking them out is cheaper than picking the rest
            columns = tuple(column[:] for column in columns)  # type: ignore[assignment]
            for index, _ in reversed(checked.broken):
                for column in columns:
                    del column[index]
        times = self._times(checked, columns[1])
        run = Run(batch.tp, checked.events, times, *columns, next_offset=batch.next_offset)
        return run, checked

    def _times(self, checked: Checked, timestamps: list[int]) -> list[int]:
        """Return the events' times (ms); a tombstone has no event to ask, only its record's."""
        times = checked.times
        if times is None:
            return timestamps
        if self.contract.null_values and None in checked.events:
            return [
                timestamp if event is None else time
                for event, time, timestamp in zip(checked.events, times, timestamps, strict=True)
            ]
        return times

    async def send(
        self,
        *,
        key: Any = None,
        value: Any = None,
        partition: int | None = None,
        timestamp: float | None = None,
        headers: Any = None,
        **_faust: Any,
    ) -> None:
        """Send one record. Inside an agent it is part of the transaction; elsewhere it is not.

        Args:
            timestamp: seconds since the epoch, as in Faust; None: the event's time.
        """
        from engine.context import current_task_context  # noqa: PLC0415  (a cycle otherwise)

        context = current_task_context()
        when = None if timestamp is None else int(timestamp * 1000)
        pairs = headers.items() if isinstance(headers, dict) else headers or ()
        raw_key, raw_value = self.encode_key(key), self.encode_value(value)
        if context is not None:
            context.emit(self, raw_key, raw_value, when, tuple(pairs), partition)
        else:
            await self.send_outside(self.name, raw_key, raw_value, when, tuple(pairs), partition)
