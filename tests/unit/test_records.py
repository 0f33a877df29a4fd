"""Record batches, both ways: what is written is what is read, and aiokafka's own codec agrees."""

import random
from types import SimpleNamespace

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from engine.errors import BrokerError
from engine.kafka.records import CODECS, compressed, encode_batches, read_columns
from engine.record import TP

HOME = TP("t", 0)


def read(data: bytes, start: int = 0):
    """Read batches as a fetch of them is read."""
    fetched = SimpleNamespace(
        _records=MemoryRecords(data), _aborted_transactions=[], next_fetch_offset=start
    )
    return read_columns(HOME, fetched)


def rows_of(count: int, noise: int = 0):
    rng = random.Random(count)
    return [
        (
            None if n % 7 == 3 else b"key-%d" % (n % 5),
            None if n % 11 == 5 else b"value %d " % n * 4 + rng.randbytes(noise),
            1_000 + n,
            (("h", b"x"), ("empty", b"")) if n % 3 == 0 else (),
        )
        for n in range(count)
    ]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("count", [1, 2, 500])
def test_what_is_written_is_read(codec, count):
    rows = rows_of(count)
    [batch] = encode_batches(rows, CODECS[codec], producer=(7, 3), sequence=9, transactional=True)
    [header] = [MemoryRecords(batch.data).next_batch()]
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (7, 3, 9)
    assert header.is_transactional
    found = read(batch.data)
    assert found.offsets == list(range(count))
    assert found.next_offset == count
    columns = zip(found.keys, found.values, found.timestamps, found.headers, strict=True)
    assert [(k, v, t, tuple(h)) for k, v, t, h in columns] == rows


def test_zstd_is_ours_and_smaller():
    [plain] = encode_batches(rows_of(300), CODECS["none"])
    [packed] = encode_batches(rows_of(300), CODECS["zstd"])
    assert packed.data == compressed(plain.data)
    assert len(packed.data) < len(plain.data) / 3
    assert MemoryRecords(packed.data).next_batch().compression_type == CODECS["zstd"]


def test_what_zstd_would_make_larger_goes_as_it_is():
    [plain] = encode_batches([(None, random.Random(1).randbytes(2_000), 1, ())], CODECS["none"])
    assert compressed(plain.data) == plain.data


@pytest.mark.parametrize("at", [25, 61, -1])
def test_a_damaged_batch_is_an_error(at):
    [batch] = encode_batches(rows_of(50), CODECS["zstd"])
    data = bytearray(batch.data)
    data[at] ^= 1
    with pytest.raises(BrokerError, match="damaged"):
        read(bytes(data))


@pytest.mark.parametrize(
    "offsets", [[0, 1, 2], [3, 4, 9], [0, 2, 3, 4], [5], [0, 1, 3, 4, 5, 8, 9]]
)
@pytest.mark.parametrize("start", [0, 4, 5])
def test_offsets_are_those_that_compaction_left(offsets, start):
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 20)
    for offset in offsets:
        assert builder.append(offset, 1, b"%d" % offset, b"", [])
    found = read(bytes(builder.build()), start)
    wanted = [offset for offset in offsets if offset >= start]
    assert found.offsets == wanted
    assert found.keys == [b"%d" % offset for offset in wanted]


def test_times_that_no_broker_takes_are_set_to_ones_that_it_does():
    rows = [(None, b"", time, ()) for time in (-5, 0, 10, 99)]
    [batch] = encode_batches(rows, CODECS["none"], latest_ms=50)
    assert read(batch.data).timestamps == [0, 0, 10, 50]
