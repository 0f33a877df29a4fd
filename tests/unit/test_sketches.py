"""Sketches keep their bounds, in any order, merged in any way, written and read in between."""

import math
import random
import subprocess
import sys

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tables.sketches import DDSketch, Frequent, HyperLogLog, scale_of, stable_hash

PRECISION = 10


def again(sketch):
    """The same after a commit and a restart."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(sketch), type=type(sketch))


# --- how many different values ----------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 10, 256, 257, 1_000, 5_000, 40_000])
def test_a_hyperloglog_counts_within_four_standard_errors(count):
    """Whatever the values are: numbers in a row, names, and all of them often."""
    for make in (int, "user_{}".format, lambda number: number / 7, b"%d".__mod__):
        sketch = HyperLogLog()
        for number in range(count):
            sketch.add(make(number), PRECISION)
            sketch.add(make(number // 2), PRECISION)
        assert sketch.count(PRECISION) == pytest.approx(
            count, abs=1, rel=4 * 1.04 / math.sqrt(1 << PRECISION)
        )


def test_the_standard_error_is_as_documented():
    """Of 60 sketches of 3,000 values each."""
    errors = []
    for trial in range(60):
        sketch = HyperLogLog()
        for number in range(3_000):
            sketch.add((trial << 32) + number, 8)
        errors.append(sketch.count(8) / 3_000 - 1)
    deviation = math.sqrt(sum(error**2 for error in errors) / len(errors))
    assert 0.6 < deviation / (1.04 / math.sqrt(256)) < 1.35
    assert abs(sum(errors) / len(errors)) < 0.03  # no bias


@given(st.lists(st.integers(0, 2_000), max_size=900), st.lists(st.integers(), max_size=400))
@settings(max_examples=60)
def test_merged_hyperloglogs_are_the_one_of_all_values(one, other):
    whole, left, right = HyperLogLog(), HyperLogLog(), HyperLogLog()
    for value in one + other:
        whole.add(value, PRECISION)
    for value in one:
        left.add(value, PRECISION)
    for value in other:
        right.add(value, PRECISION)
    left.merge(again(right), PRECISION)
    assert again(left) == whole
    assert len(msgspec.msgpack.encode(left)) <= (1 << PRECISION) + 8


def test_a_value_has_the_same_hash_in_every_process():
    script = "from tables.sketches import stable_hash as h; print(h('a'), h(1), h(b'a'), h(1.5))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.split() == [str(stable_hash(v)) for v in ("a", 1, b"a", 1.5)]
    assert stable_hash(1) == stable_hash(1.0) == stable_hash(value=True)
    assert len({stable_hash(v) for v in ("1", 1, b"1", 1.5, None)}) == 5


# --- quantiles --------------------------------------------------------------------------------

numbers = st.floats(-1e9, 1e9) | st.integers(-1000, 1000) | st.floats(-1e-9, 1e-9)


@given(
    st.lists(numbers, min_size=1, max_size=200),
    st.lists(numbers, max_size=50),
    st.floats(0, 1),
    st.sampled_from([0.005, 0.01, 0.1]),
)
def test_a_quantile_is_within_its_relative_error(one, other, q, error):
    scale = scale_of(error)
    left, right = DDSketch(), DDSketch()
    for number in one:
        left.add(number, scale, 100_000)
    for number in other:
        right.add(number, scale, 100_000)
    left.merge(again(right), 100_000)
    exact = sorted(one + other)[math.floor(q * (len(one + other) - 1))]
    assert again(left).quantile(q, scale) == pytest.approx(exact, rel=error * 1.000001, abs=0)


def test_what_is_no_finite_number_is_left_out():
    sketch = DDSketch()
    for number in (math.nan, math.inf, -math.inf):
        sketch.add(number, scale_of(0.01), 100)
    assert sketch == DDSketch()
    assert sketch.quantile(0.5, scale_of(0.01)) is None


def test_too_many_buckets_cost_accuracy_at_the_low_end_alone():
    scale, buckets = scale_of(0.01), 64
    sketch, other = DDSketch(), DDSketch()
    values = [1.05**number for number in range(1_000)]
    random.Random(7).shuffle(values)
    for value in values[:500]:
        sketch.add(value, scale, buckets)
    for value in values[500:]:
        other.add(value, scale, buckets)
    sketch.merge(other, buckets)
    assert len(sketch.above) <= buckets
    assert sum(sketch.above.values()) == 1_000
    assert sketch.quantile(0.99, scale) == pytest.approx(sorted(values)[989], rel=0.011)


# --- the most frequent ------------------------------------------------------------------------

words = st.lists(st.sampled_from("aaaaabbbbccdefghijklmnopqrstuvwxyz"), max_size=300)


@given(words, words, st.sampled_from([4, 8, 16]))
def test_a_count_lacks_no_more_than_it_says_and_has_none_too_many(one, other, capacity):
    left, right = Frequent(), Frequent()
    for word in one:
        left.add(word, capacity)
    for word in other:
        right.add(word, capacity)
    left.merge(again(right), capacity)
    left = again(left)
    every = one + other
    assert left.missed <= 2 * len(every) / capacity
    assert len(left.counts) <= capacity
    for word in set(every):
        assert every.count(word) - left.missed <= left.counts.get(word, 0) <= every.count(word)
    if len(set(every)) <= capacity:
        assert left.counts == {word: every.count(word) for word in set(every)}


def test_equals_come_in_the_order_of_their_first():
    sketch = Frequent()
    for word in "cabbac":
        sketch.add(word, 10)
    assert sketch.top(2) == [("c", 2), ("a", 2)]
