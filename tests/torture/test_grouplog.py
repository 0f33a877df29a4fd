"""The group coordinator's log is read as Kafka 4.3.1 wrote it."""

import struct

import pytest

from engine.torture.grouplog import Commit, Member, partition_of, read
from engine.torture.observer import Record

GROUP = "t1-clickstream"
CLIENT = b"headrace-t1-clickstream-consumer"
MEMBER = CLIENT + b"-1d3d6db6-5839-48b0-a5ac-c25b8eb9db4a"

OFFSET_KEY = b"\x00\x01\x00\x0et1-clickstream\x00\rt1-raw-events\x00\x00\x00\x01"
OFFSET = (
    b"\x00\x04\x00\x00\x00\x00\x00\x00\x01\xf9\xff\xff\xff\xff"
    b'<{"times":{"counts":1736125015399,"sessions":1736125015399}}\x00\x00\x01\xa2\rlQ\x8e\x00'
)
GROUP_KEY = b"\x00\x02\x00\x0et1-clickstream"
SUBSCRIPTION = (
    b"\x00\x00\x00\x00\x00\x02\x00\rt1-raw-events\x00\x10t1-user-profiles\x00\x00\x00\x01\x90"
)
ASSIGNMENT = (
    b"\x00\x00\x00\x00\x00\x02\x00\rt1-raw-events\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x01"
    b"\x00\x10t1-user-profiles\x00\x00\x00\x01\x00\x00\x00\x05\x00\x00\x00\x00"
)


def classic_generation() -> bytes:
    """A GroupMetadataValue of version 3: plain lengths, no tags."""

    def text(data: bytes) -> bytes:
        return struct.pack(">h", len(data)) + data

    def blob(data: bytes) -> bytes:
        return struct.pack(">i", len(data)) + data

    return (
        b"\x00\x03" + text(b"consumer") + b"\x00\x00\x00\x01" + text(b"headrace-tasks")
        + text(MEMBER) + b"\x00\x00\x01\xa2\rlO\xaa" + b"\x00\x00\x00\x01"
        + text(MEMBER) + b"\xff\xff" + text(CLIENT) + text(b"/127.0.0.1")
        + b"\x00\x00u0" + b"\x00\x00\x07\xd0" + blob(SUBSCRIPTION) + blob(ASSIGNMENT)
    )  # fmt: skip


def flexible_generation() -> bytes:
    """The same in version 4: compact lengths, tags at the ends."""

    def compact(data: bytes) -> bytes:
        size = len(data) + 1
        head = bytes([size & 0x7F | 0x80, size >> 7]) if size > 0x7F else bytes([size])
        return head + data

    return (
        b"\x00\x04" + compact(b"consumer") + b"\x00\x00\x00\x01" + compact(b"headrace-tasks")
        + compact(MEMBER) + b"\x00\x00\x01\xa2\rlO\xaa" + b"\x02"
        + compact(MEMBER) + b"\x00" + compact(CLIENT) + compact(b"/127.0.0.1")
        + b"\x00\x00u0" + b"\x00\x00\x07\xd0" + compact(SUBSCRIPTION) + compact(ASSIGNMENT)
        + b"\x00\x00"
    )  # fmt: skip


def test_an_offset_comes_with_its_place_and_its_producer() -> None:
    """And offsets of other groups in the same partition are left out."""
    rows = [
        Record(0, 2, OFFSET_KEY, OFFSET, 1_795_521_532_306, {}, (7, 3)),
        Record(0, 3, OFFSET_KEY.replace(b"t1-click", b"t2-click"), OFFSET, 0, {}),
        Record(0, 4, OFFSET_KEY, None, 0, {}),
    ]
    found = read(GROUP, rows)
    assert found.commits == [Commit(2, 1_795_521_532_306, ("t1-raw-events", 1), 505, (7, 3))]
    assert found.latest() == {("t1-raw-events", 1): 505}


@pytest.mark.parametrize("value", [classic_generation(), flexible_generation()])
def test_a_generation_says_who_owns_what(value: bytes) -> None:
    """In both versions that brokers write."""
    [generation] = read(GROUP, [Record(0, 9, GROUP_KEY, value, 5, {})]).generations
    places = {("t1-raw-events", 0), ("t1-raw-events", 1), ("t1-user-profiles", 5)}
    assert (generation.at, generation.when_ms, generation.number) == (9, 5, 1)
    assert generation.members == (Member(CLIENT.decode(), frozenset(places)),)


def test_a_groups_partition_is_javas_string_hash() -> None:
    """It overflows and may be negative, and the least of all numbers has no absolute value."""
    assert partition_of("a", 50) == 97 % 50
    assert partition_of("polygenelubricants", 50) == 0  # hashes to the least of all numbers
    assert partition_of("t1-clickstream", 4) == 0
