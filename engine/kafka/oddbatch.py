"""Record batches that aiokafka's compiled codec does not read as they are.

*Old ones* (message formats 0 and 1, from before Kafka 0.11, which brokers still hand out) have no
header to go by, and where they and new ones come in one fetch the compiled code takes the format of
the first for that of all. And a batch with a *header name that is no UTF-8* raises at that record
and never goes on: Java replaces such bytes, some C clients send them, and a worker must not end at
them. Such a fetch is read by aiokafka's code in Python, or here, slowly, from the bytes that came.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords, _MemoryRecordsPy
from aiokafka.record.util import decode_varint

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAGIC_AT, _MAGIC = 16, 2
NO_TIMESTAMP = -1
"""Kafka's: format 0 has none."""


class KeptRecords(MemoryRecords):
    """What aiokafka takes record batches from, with the bytes that it was made of."""

    def __init__(self, raw: bytes) -> None:
        super().__init__(raw)
        self.raw = raw


fetcher.MemoryRecords = KeptRecords  # where its fetcher finds it


class OddRecord(NamedTuple):
    """A record as aiokafka's are."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


class OldBatch:
    """A batch of format 0 or 1: what is asked of one, found out by reading it."""

    is_control_batch = is_transactional = False
    producer_id = None

    def __init__(self, part: Any) -> None:
        self._records = [
            OddRecord(record.offset, NO_TIMESTAMP if record.timestamp is None else record.timestamp,
                      record.key, record.value, [])
            for record in part
        ]  # fmt: skip
        self.base_offset = self._records[0].offset if self._records else part.next_offset
        self.next_offset = part.next_offset

    def __iter__(self) -> Iterator[OddRecord]:
        return iter(self._records)


def batches_of(records: Any) -> Any:
    """Return what to take a fetch's batches from."""
    raw: bytes = getattr(records, "raw", b"")
    if any(raw[at + _MAGIC_AT] < _MAGIC for at, _ in _places(raw)):
        return _MemoryRecordsPy(raw)
    return records


def _places(raw: bytes) -> Iterator[tuple[int, int]]:
    """Yield where each batch begins and ends; the last one of a fetch may be cut off."""
    at = 0
    while at + _MAGIC_AT < len(raw):
        end = at + 12 + int.from_bytes(raw[at + 8 : at + 12], "big")
        yield at, end
        at = end


def read_again(raw: bytes, base_offset: int) -> Iterator[OddRecord]:
    """Yield a batch's records; bytes of a header's name that are no UTF-8 become U+FFFD.

    Args:
        raw: all batches of a fetch.
        base_offset: of the batch to read.

    Source: Kafka's protocol guide, "Record Batch" and "Record".
    """
    places = ((at, end) for at, end in _places(raw) if _offset(raw, at) == base_offset)
    at, end = next(places)
    batch = _DefaultRecordBatchPy(raw[at:end])
    batch._maybe_uncompress()
    data, at = bytes(batch._buffer), batch._pos
    for _ in range(batch._num_records):
        record, at = _record(data, at, batch)
        yield record


def _offset(raw: bytes, at: int) -> int:
    return int.from_bytes(raw[at : at + 8], "big")


def _record(data: bytes, at: int, batch: Any) -> tuple[OddRecord, int]:
    _, at = decode_varint(data, at)  # its length
    delta, at = decode_varint(data, at + 1)  # behind its attributes
    timestamp = batch.max_timestamp if batch.timestamp_type else batch.first_timestamp + delta
    delta, at = decode_varint(data, at)
    key, at = _bytes(data, at)
    value, at = _bytes(data, at)
    count, at = decode_varint(data, at)
    headers = []
    for _ in range(count):
        name, at = _bytes(data, at)
        content, at = _bytes(data, at)
        headers.append(((name or b"").decode(errors="replace"), content))
    return OddRecord(batch.base_offset + delta, timestamp, key, value, headers), at


def _bytes(data: bytes, at: int) -> tuple[bytes | None, int]:
    size, at = decode_varint(data, at)
    return (None, at) if size < 0 else (data[at : at + size], at + size)
