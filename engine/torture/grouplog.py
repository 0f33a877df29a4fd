"""The group coordinator's own log: who was to own what, and which offsets were committed by whom.

A group's part of ``__consumer_offsets`` is one partition and so is in order: each generation with
its members' assignments, and between them the offsets, each with the producer whose transaction
they belong to. A sample every now and then would miss what happens between two of them.

The formats are Kafka's (``group-coordinator/src/main/resources/common/message`` of apache/kafka:
OffsetCommitKey/Value, GroupMetadataKey/Value; clients: ConsumerProtocolAssignment).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from engine.torture.observer import Record

OFFSETS_TOPIC = "__consumer_offsets"
_OFFSET_KEYS = {0, 1}
_GROUP_KEY = 2

Place = tuple[str, int]
"""Topic and partition."""


class Commit(NamedTuple):
    """An offset that was committed: at which place of the log, when (broker's ms), by whom."""

    at: int
    when_ms: int
    place: Place
    offset: int
    producer: tuple[int, int]


class Member(NamedTuple):
    """A member of a generation."""

    client_id: str
    places: frozenset[Place]


class Generation(NamedTuple):
    """A generation of the group: who was to own what from here on."""

    at: int
    when_ms: int
    number: int
    members: tuple[Member, ...]


@dataclass
class GroupLog:
    """What happened to a group, in order."""

    commits: list[Commit] = field(default_factory=list)
    generations: list[Generation] = field(default_factory=list)

    def latest(self) -> dict[Place, int]:
        """Return the committed offsets at the end."""
        return {commit.place: commit.offset for commit in self.commits}


def partition_of(group: str, partitions: int) -> int:
    """Return the partition of ``__consumer_offsets`` that a group is in: Java's string hash."""
    hashed = 0
    units = group.encode("utf-16-be")
    for high, low in zip(units[::2], units[1::2], strict=True):
        hashed = (31 * hashed + (high << 8 | low)) & 0xFFFFFFFF
    signed = hashed - (1 << 32) if hashed >> 31 else hashed
    return abs(signed) % partitions if signed != -(1 << 31) else 0


def read(group: str, records: Iterable[Record]) -> GroupLog:
    """Return what the committed records of its partition say of a group."""
    found = GroupLog()
    for record in records:
        if record.key is None or record.value is None:
            continue
        key, value = _Reader(record.key), _Reader(record.value)
        kind = key.number("h")
        if kind in _OFFSET_KEYS and key.text() == group:
            place = (key.text(), key.number("i"))
            value.number("h")  # the version: all of them begin with the offset
            found.commits.append(
                Commit(record.offset, record.timestamp, place, value.number("q"), record.producer)
            )
        elif kind == _GROUP_KEY and key.text() == group:
            number, members = _generation(value)
            found.generations.append(
                Generation(record.offset, record.timestamp, number, tuple(members))
            )
    return found


def _generation(value: _Reader) -> tuple[int, Iterator[Member]]:
    """Return a GroupMetadataValue's generation and members."""
    version = value.number("h")
    value.flexible = version >= 4  # noqa: PLR2004
    value.text()  # the protocol's type
    number = value.number("i")
    value.text()  # the assignor
    value.text()  # the leader
    if version >= 2:  # noqa: PLR2004
        value.number("q")  # since when
    return number, _members(value, version)


def _members(value: _Reader, version: int) -> Iterator[Member]:
    for _ in range(value.count()):
        value.text()  # the member's id
        if version >= 3:  # noqa: PLR2004
            value.text()  # the instance's id
        client_id = value.text()
        value.text()  # the host
        if version >= 1:
            value.number("i")  # the rebalance timeout
        value.number("i")  # the session timeout
        value.blob()  # the subscription
        assignment = value.blob()
        value.tags()
        yield Member(client_id, frozenset(_assigned(_Reader(assignment)) if assignment else ()))


def _assigned(value: _Reader) -> Iterator[Place]:
    value.number("h")
    for _ in range(value.count()):
        topic = value.text()
        for _ in range(value.count()):
            yield topic, value.number("i")


class _Reader:
    """Reads Kafka's primitive types, from left to right."""

    def __init__(self, data: bytes) -> None:
        self.flexible = False
        self._data = data
        self._at = 0

    def number(self, code: str) -> int:
        [value] = struct.unpack_from(f">{code}", self._data, self._at)
        self._at += struct.calcsize(f">{code}")
        return int(value)

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._data[self._at]
            self._at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:  # noqa: PLR2004
                return value

    def _take(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + max(0, size)]
        self._at += max(0, size)
        return taken

    def text(self) -> str:
        """Read a string; null is empty."""
        return self._take(self._varint() - 1 if self.flexible else self.number("h")).decode()

    def blob(self) -> bytes:
        return self._take(self._varint() - 1 if self.flexible else self.number("i"))

    def count(self) -> int:
        """Read how many elements an array has; null has none."""
        return max(0, self._varint() - 1 if self.flexible else self.number("i"))

    def tags(self) -> None:
        """Skip what later versions have added."""
        if self.flexible:
            for _ in range(self._varint()):
                self._varint()
                self._take(self._varint())
