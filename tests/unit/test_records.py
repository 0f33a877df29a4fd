"""Record batches, both ways: what is written is what is read, and aiokafka's own codec agrees."""

import random
import struct
from types import SimpleNamespace

import pytest
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c

from engine.errors import BrokerError
from engine.kafka.oddbatch import KeptRecords
from engine.kafka.records import CODECS, Packed, compressed, encode_batches, read_columns
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


def batch_at(base, offsets, *, end=0, producer=-1, control=b""):
    """Return a record batch as a log has it: from ``base`` on, these offsets left of it.

    Args:
        end: where it ends, if its last records are gone.
    """
    builder = DefaultRecordBatchBuilder(2, 0, int(producer >= 0), producer, 0, 0, 1 << 20)
    for offset in offsets:
        key = control or b"%d" % offset
        assert builder.append(offset - base, 1, key, b"v", [])
    data = bytearray(builder.build())
    if control:
        data[22] |= 0x20
    data[:8] = struct.pack(">q", base)
    if end:
        data[23:27] = struct.pack(">i", end - 1 - base)
    data[17:21] = struct.pack(">I", calc_crc32c(bytes(data[21:])))
    return bytes(data)


ABORT, COMMIT = b"\0\0\0\0", b"\0\0\0\1"
LOG = b"".join((
    batch_at(0, [0, 1, 2, 3, 4]),
    batch_at(5, [5, 7], end=12),  # compacted
    batch_at(12, [12, 13], producer=8),  # to be aborted
    batch_at(14, [14, 15], producer=9),
    batch_at(16, [16], producer=8, control=ABORT),
    batch_at(17, [17, 18], producer=8),  # the next transaction
    batch_at(19, [19], producer=8, control=COMMIT),
    batch_at(20, [20], producer=9, control=COMMIT),
))  # fmt: skip
SEEN = [0, 1, 2, 3, 4, 5, 7, 14, 15, 17, 18]


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 8, 100])
@pytest.mark.parametrize("start", [0, 3, 6, 9, 13, 18, 19])
def test_what_is_unpacked_in_pieces_is_the_whole(limit, start):
    fetched = SimpleNamespace(
        _records=MemoryRecords(LOG), _aborted_transactions=[(8, 12)], next_fetch_offset=start
    )
    left = Packed(HOME, fetched)
    assert left.next_offset == 21
    offsets, held = [], left.bytes
    while left is not None:
        piece, left = left.unpack(limit)
        assert len(piece) <= limit
        assert not piece.offsets or piece.offsets[0] >= (offsets or [start])[-1]
        assert piece.keys == [b"%d" % offset for offset in piece.offsets]
        offsets += piece.offsets
        if left is not None:
            assert piece.next_offset == piece.offsets[-1] + 1 or not piece.offsets
            assert left.records > 0
            assert left.bytes <= held
            held = left.bytes
    assert piece.next_offset == 21
    assert offsets == [offset for offset in SEEN if offset >= start]


def test_what_has_been_opened_counts_as_what_it_inflates_to():
    [batch] = encode_batches([(None, b"x" * 1_000, 1, ())] * 800, CODECS["zstd"])
    fetched = SimpleNamespace(
        _records=MemoryRecords(batch.data), _aborted_transactions=[], next_fetch_offset=0
    )
    packed = Packed(HOME, fetched)
    assert (packed.records, packed.bytes) == (800, len(batch.data))
    piece, left = packed.unpack(300)
    assert (len(piece), left.records) == (300, 500)
    assert 500_000 <= left.bytes < 502_000


def odd_header(data: bytes, compress=bytes) -> bytes:
    """The same batch with a header name that is no UTF-8."""
    assert data.count(b"odd!") == 1
    changed = compress(data.replace(b"odd!", b"\xfe\xffd!"))
    summed = struct.pack(">I", calc_crc32c(changed[21:]))
    return changed[:17] + summed + changed[21:]


@pytest.mark.parametrize("compress", [bytes, compressed])
@pytest.mark.parametrize("limit", [1, 4, 100])
@pytest.mark.parametrize("start", [0, 9, 18])
def test_a_header_name_that_is_no_utf_8_is_read(compress, limit, start):
    """As Java reads it. It ended the worker, at the same record again after each restart."""
    rows = [*rows_of(6), (b"k", b"v", 7, (("odd!", b"x"), ("none", None))), *rows_of(5)]
    before, after = rows_of(8), rows_of(4)
    [one], [two], [three] = (encode_batches(each, 0) for each in (before, rows, after))
    data = one.data + struct.pack(">q", 8) + odd_header(two.data, compress)[8:]
    data += struct.pack(">q", 20) + three.data[8:]
    fetched = SimpleNamespace(
        _records=KeptRecords(data), _aborted_transactions=[], next_fetch_offset=start
    )
    left, found = Packed(HOME, fetched), []
    while left is not None:
        piece, left = left.unpack(limit)
        found += zip(
            piece.offsets, piece.keys, piece.values, piece.timestamps, piece.headers, strict=True
        )
    told = [(offset, k, v, t, tuple(map(tuple, h))) for offset, k, v, t, h in found]
    sent = [*before, *rows, *after]
    sent[14] = (b"k", b"v", 7, (("\ufffd\ufffdd!", b"x"), ("none", None)))
    assert told == [(offset, *sent[offset]) for offset in range(start, 24)]


def test_what_aiokafka_fetches_is_kept():
    """Else the batch above could not be read again."""
    assert fetcher.MemoryRecords is KeptRecords
    assert KeptRecords(LOG).raw is LOG


OLD = [(0, "none"), (0, "gzip"), (0, "snappy"), (1, "none"), (1, "gzip"), (1, "snappy"), (1, "lz4")]


@pytest.mark.parametrize(("magic", "name"), OLD)
def test_formats_from_before_headers_are_read(magic, name):
    """Brokers keep what was written long ago, and hand it out as it is."""
    codec = CODECS[name]
    builder = LegacyRecordBatchBuilder(magic, codec, 10_000)
    for offset in range(5):
        builder.append(offset, 1_000 + offset, b"k%d" % offset, b"v" if offset else None)
    old = bytes(builder.build())
    if codec:  # a batch of these formats has the offset of its last record
        old = struct.pack(">q", 4) + old[8:]
    [new] = encode_batches(rows_of(3), 0)
    data = old + struct.pack(">q", 5) + new.data[8:]
    fetched = SimpleNamespace(
        _records=KeptRecords(data + data[:20]), _aborted_transactions=[], next_fetch_offset=2
    )
    found = read_columns(HOME, fetched)
    assert found.offsets == [2, 3, 4, 5, 6, 7]
    assert found.keys[:3] == [b"k2", b"k3", b"k4"]
    assert found.timestamps[:3] == ([1_002, 1_003, 1_004] if magic else [-1, -1, -1])
    assert found.values[3:] == [row[1] for row in rows_of(3)]
    assert found.next_offset == 8


def test_times_that_no_broker_takes_are_set_to_ones_that_it_does():
    rows = [(None, b"", time, ()) for time in (-5, 0, 10, 99)]
    [batch] = encode_batches(rows, CODECS["none"], latest_ms=50)
    assert read(batch.data).timestamps == [0, 0, 10, 50]
