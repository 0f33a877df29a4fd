"""What is decoded in memory is bounded after each commit, for all kinds of partitions alike."""

import operator

import pytest

from tables.codec import key_codec, value_codec
from tables.foreignkey import LeftPartition, RightPartition
from tables.memory import MemoryStore
from tables.session import Gap, SessionPartition
from tables.table import KeyedPartition
from tables.tablejoin import TableJoinPartition
from tables.window import Aggregate

MOST, ENTRIES = 20, 100
STR, INT = key_codec(str), value_codec(int)


def keyed(store):
    table = KeyedPartition("t", store, key=STR, value=INT, cache_entries=MOST)
    return table, lambda n: table.put(f"{n}", n)


def sessions(store):
    add = Aggregate(int, operator.add, operator.add, int)
    table = SessionPartition(
        "t", store, gap=Gap(10**6), key=STR, aggregate=add, cache_entries=MOST
    )  # fmt: skip
    return table, lambda n: table.update(f"{n}", n, n)


def joined(store):
    table = TableJoinPartition("t", store, how="outer", codecs=(INT, INT), cache_entries=MOST)
    return table, lambda n: table.step(0, b"%d" % n, n, n)


def left(store):
    table = LeftPartition(
        "t", store, how="left", codecs=(INT, INT), foreign_key=lambda _: None,
        send=lambda *_: None, cache_entries=MOST,
    )  # fmt: skip
    return table, lambda n: table.step(0, b"%d" % n, n, n)


def right(store):
    table = RightPartition("t", store, cache_entries=MOST)
    return table, lambda n: list(table.update(b"%d" % n, b"", n))


@pytest.mark.parametrize("make", [keyed, sessions, joined, left, right])
def test_what_is_not_changed_leaves_memory_and_is_not_lost(make):
    store = MemoryStore()
    table, change = make(store)
    for n in range(ENTRIES):
        change(n)
    store.write(table.cut().store)
    for n in range(5):
        change(n)  # while the cut is on its way
    table.committed()
    assert 5 <= table.held() // table.entry_bytes <= MOST
    assert len(table.cut().changelog) >= 5
    if make is not right:  # of that, the subscriptions are told
        assert len(list(table.items())) == ENTRIES
