"""Keys land where every other Kafka client puts them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.partitioner import Partitioner, murmur2

VECTORS = [  # from Kafka's own UtilsTest
    (b"21", -973932308),
    (b"foobar", -790332482),
    (b"a-little-bit-long-string", -985981536),
    (b"a-little-bit-longer-string", -1486304829),
    (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
    (b"abc", 479470107),
]


@pytest.mark.parametrize(("key", "hashed"), VECTORS)
def test_the_hash_is_kafkas(key, hashed):
    assert murmur2(key) == hashed & 0xFFFFFFFF


@pytest.mark.parametrize(("key", "hashed"), VECTORS)
@pytest.mark.parametrize("partitions", [1, 3, 4, 12])
def test_the_sign_bit_is_cut_off(key, hashed, partitions):
    assert Partitioner(partitions)[key] == (hashed & 0x7FFFFFFF) % partitions


@given(st.binary(max_size=40), st.integers(1, 100))
def test_every_key_has_one_partition(key, partitions):
    partitioner = Partitioner(partitions)
    first = partitioner[key]
    assert 0 <= first < partitions
    assert partitioner[key] == first == Partitioner(partitions)[key]


def test_the_memo_is_bounded():
    partitioner = Partitioner(7)
    for number in range(200_010):
        partitioner[b"%d" % number]
    assert len(partitioner) <= 200_000
    assert partitioner[b"5"] == Partitioner(7)[b"5"]


def test_keys_spread():
    counts = [0] * 8
    partitioner = Partitioner(8)
    for number in range(8_000):
        counts[partitioner[b"user_%d" % number]] += 1
    assert min(counts) > 800
