"""Summaries of many values in little space, with a bound on their error. All can be merged.

* :class:`HyperLogLog`, how many different values: Flajolet, Fusy, Gandouet and Meunier, 2007, with
  the estimator of Ertl, "New cardinality estimation algorithms for HyperLogLog sketches", 2017,
  which needs no tables of corrections. Standard error 1.04 / sqrt(registers).
* :class:`DDSketch`, quantiles: Masson, Rim and Lee, "DDSketch", VLDB 2019. The answer is within a
  relative error of the true one, always.
* :class:`Frequent`, the most frequent values: Misra and Gries, 1982, many counters lowered at a
  time as in Anderson et al., "A high-performance algorithm for identifying frequent items in data
  streams", 2017.

They are Structs, so msgspec writes them as they are. What makes one (its error, its size) is given
at each call and not kept in it.
"""

from __future__ import annotations

import math
from collections import Counter
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import msgspec

HASH_BITS = 64
SPARSE_MOST = 256
"""So many registers are kept one by one; then all of them, a byte each."""
HASHES_KEPT = 8192

_pack = msgspec.msgpack.Encoder().encode


def stable_hash(value: Any) -> int:
    """Return 64 bits that depend on the value alone: not on the process, nor on int or float."""
    if isinstance(value, str):
        raw = b"s" + value.encode("utf-8", "surrogatepass")
    elif isinstance(value, bytes):
        raw = b"b" + value
    elif isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        raw = b"i%d" % int(value)
    else:
        raw = _pack(value)
    return int.from_bytes(blake2b(raw, digest_size=HASH_BITS // 8).digest(), "big")


# -- how many different values ---------------------------------------------------------------------


@lru_cache(HASHES_KEPT, typed=True)
def _place(value: Any, precision: int) -> tuple[int, int]:
    """Return the register of a value, and where the first 1 is in the rest of its hash."""
    width = HASH_BITS - precision
    hashed = stable_hash(value)
    return hashed >> width, width - (hashed & ((1 << width) - 1)).bit_length() + 1


class HyperLogLog(msgspec.Struct, array_like=True, gc=False):
    """About how many different values it was given.

    Attributes:
        few: register -> rank, while there are few.
        registers: the ranks of all 2 ** precision registers, once there are many.
    """

    few: dict[int, int] = {}
    registers: bytearray = msgspec.field(default_factory=bytearray)

    def add(self, value: Any, precision: int) -> None:
        """Take one more value."""
        index, rank = _place(value, precision)
        registers = self.registers
        if registers:
            if rank > registers[index]:  # noqa: PLR1730  (max() costs twice as much)
                registers[index] = rank
        elif rank > self.few.get(index, 0):
            self.few[index] = rank
            if len(self.few) > SPARSE_MOST:
                self._spread(precision)

    def _spread(self, precision: int) -> None:
        self.registers = bytearray(1 << precision)
        for index, rank in self.few.items():
            self.registers[index] = rank
        self.few = {}

    def merge(self, other: HyperLogLog, precision: int) -> None:
        """Take all that another one was given."""
        if other.registers:
            if not self.registers:
                self._spread(precision)
            self.registers = bytearray(map(max, self.registers, other.registers))
            return
        mine: Any = self.registers or self.few
        for index, rank in other.few.items():
            if rank > (mine[index] if self.registers else mine.get(index, 0)):
                mine[index] = rank
        if len(self.few) > SPARSE_MOST:
            self._spread(precision)

    def count(self, precision: int) -> int:
        """Return the estimate (Ertl's algorithm 6)."""
        size, width = 1 << precision, HASH_BITS - precision
        ranks = Counter(self.registers or self.few.values())
        if not self.registers:
            ranks[0] = size - len(self.few)
        total = size * _tau(1 - ranks[width + 1] / size)
        for rank in range(width, 0, -1):
            total = 0.5 * (total + ranks[rank])
        total += size * _sigma(ranks[0] / size)
        return round(size * size / (2 * math.log(2) * total))


def _sigma(x: float) -> float:
    if x == 1:
        return math.inf
    weight, total, before = 1.0, x, -1.0
    while total != before:
        x *= x
        before = total
        total += x * weight
        weight += weight
    return total


def _tau(x: float) -> float:
    if x in {0, 1}:
        return 0.0
    weight, total, before = 1.0, 1 - x, -1.0
    while total != before:
        x = math.sqrt(x)
        before = total
        weight *= 0.5
        total -= (1 - x) ** 2 * weight
    return total / 3


# -- quantiles -------------------------------------------------------------------------------------


class DDSketch(msgspec.Struct, array_like=True, gc=False):
    """Counts of numbers in buckets whose bounds grow by a factor. Not finite ones are left out.

    Attributes:
        zeros: how many were 0.
        above: bucket -> count of the positive ones.
        below: the same of the negative ones, by their magnitude.
    """

    zeros: int = 0
    above: dict[int, int] = {}
    below: dict[int, int] = {}

    def add(self, number: float, scale: float, buckets: int) -> None:
        """Take one more number.

        Args:
            scale: 1 / log(growth), see :func:`scale_of`.
            buckets: the most there may be of either sign. When there are more, the lowest become
                one, and what lies in it is known less well.
        """
        if number > 0:
            counts = self.above
        elif number < 0:
            counts, number = self.below, -number
        else:
            self.zeros += number == 0
            return
        try:
            bucket = math.ceil(math.log(number) * scale)
        except OverflowError:  # infinity
            return
        counts[bucket] = counts.get(bucket, 0) + 1
        if len(counts) > buckets:
            _collapse(counts, buckets)

    def merge(self, other: DDSketch, buckets: int) -> None:
        """Take all that another one of the same scale was given."""
        self.zeros += other.zeros
        for mine, theirs in ((self.above, other.above), (self.below, other.below)):
            for bucket, count in theirs.items():
                mine[bucket] = mine.get(bucket, 0) + count
            if len(mine) > buckets:
                _collapse(mine, buckets)

    def quantile(self, q: float, scale: float) -> float | None:
        """Return about the number of rank floor(q * (n - 1)) of n, from 0; None of none."""
        below, above = sum(self.below.values()), sum(self.above.values())
        total = below + self.zeros + above
        if not total:
            return None
        rank = math.floor(q * (total - 1))
        if rank < below:
            return -_number_at(self.below, below - 1 - rank, scale)
        if rank < below + self.zeros:
            return 0.0
        return _number_at(self.above, rank - below - self.zeros, scale)


def scale_of(error: float) -> float:
    """Return the scale of a sketch with this relative error: buckets grow by (1 + e) / (1 - e)."""
    return 1 / math.log((1 + error) / (1 - error))


def _number_at(counts: dict[int, int], rank: int, scale: float) -> float:
    """Return what stands for the bucket of the number of that rank: its middle, relatively."""
    seen, bucket = 0, 0
    for bucket in sorted(counts):
        seen += counts[bucket]
        if seen > rank:
            break
    growth = math.exp(1 / scale)
    return 2 * math.exp(bucket / scale) / (growth + 1)


def _collapse(counts: dict[int, int], buckets: int) -> None:
    """Make one bucket of the lowest, so that an eighth of the room is free."""
    ordered = sorted(counts)
    lowest = ordered[: len(ordered) - buckets + buckets // 8 + 1]
    total = sum(counts.pop(bucket) for bucket in lowest)
    counts[lowest[-1]] = total


# -- the most frequent values ----------------------------------------------------------------------


class Frequent(msgspec.Struct, array_like=True, gc=False):
    """Counts of the values that are frequent. None is over the true one, or ``missed`` below it.

    Attributes:
        counts: value -> count, ``capacity`` of them at most.
        missed: what a count may lack; below 2 / capacity of all values that were given.
    """

    counts: dict[Any, int] = {}
    missed: int = 0

    def add(self, value: Any, capacity: int) -> None:
        """Take one more value."""
        counts = self.counts
        counts[value] = counts.get(value, 0) + 1
        if len(counts) > capacity:
            self._lower(capacity)

    def _lower(self, capacity: int) -> None:
        """Lower all counts by as much as leaves half of them; the others had little."""
        by = sorted(self.counts.values(), reverse=True)[capacity // 2]
        self.counts = {value: count - by for value, count in self.counts.items() if count > by}
        self.missed += by

    def merge(self, other: Frequent, capacity: int) -> None:
        """Take all that another one was given."""
        counts = self.counts
        for value, count in other.counts.items():
            counts[value] = counts.get(value, 0) + count
        self.missed += other.missed
        if len(counts) > capacity:
            self._lower(capacity)

    def top(self, most: int) -> list[tuple[Any, int]]:
        """Return the most frequent values with their counts; of equals, who came first."""
        return sorted(self.counts.items(), key=lambda pair: -pair[1])[:most]
