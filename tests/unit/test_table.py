"""A keyed partition is a dict that comes back as of its last commit."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tables.codec import decode_time, encode_time, key_codec, value_codec
from tables.memory import MemoryStore
from tables.table import KeyedPartition
from tests.unit.harness import ACTIONS, Harness


def keyed(cache_entries=100_000, key=str, value=None):
    def make(store, emit):
        return KeyedPartition(
            "t", store, key=key_codec(key), value=value_codec(value), cache_entries=cache_entries
        )

    return make


keys = st.sampled_from(["a", "b", "c", "d", "e", "ab", "é"])
values = st.integers(-3, 3) | st.text(max_size=2) | st.lists(st.integers(0, 3), max_size=2)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), keys, values),
        st.tuples(st.just("put_raw"), keys, values),
        st.tuples(st.just("append"), keys, st.integers(0, 3)),
        st.tuples(st.just("delete"), keys),
        st.tuples(st.just("get"), keys),
        st.tuples(st.just("load_many"), st.lists(keys, max_size=4)),
        st.tuples(st.just("items")),
        st.tuples(st.sampled_from(ACTIONS)),
    ),
    max_size=60,
)


@given(steps, st.integers(0, 4))
def test_it_is_a_dict(steps, cache_entries):  # noqa: C901, PLR0912, PLR0915
    """Reads and writes at random, with evictions, cuts in flight, crashes and lost disks."""
    harness = Harness(keyed(cache_entries))
    now, cut, committed = {}, None, {}
    codec = value_codec()
    for what, *arguments in steps:
        table = harness.partition
        match what, *arguments:
            case "put", key, value:
                table.put(key, value)
                now[key] = value
            case "put_raw", key, value:
                table.put_raw(key, value, codec.encode(value))
                now[key] = value
            case "append", key, value:  # change in place, then set
                held = table.get(key)
                if isinstance(held, list):
                    held.append(value)
                    table.put(key, held)
                    now[key] = [*now[key], value] if now[key] is not held else held
            case "delete", key:
                table.delete(key)
                now.pop(key, None)
            case "get", key:
                assert table.get(key, "absent") == now.get(key, "absent")
            case "load_many", wanted:
                table.load_many(wanted)
            case ("items",):
                assert list(table.items()) == sorted(now.items(), key=lambda i: i[0].encode())
            case ("cut",):
                if cut is None:
                    cut = frozen(now)
                harness.cut()
            case ("land",):
                if cut is not None:
                    committed, cut = cut, None
                harness.land()
            case _:
                if what == "crash after the commit" and cut is not None:
                    committed = cut
                now, cut = frozen(committed), None
                harness.act(what)
    harness.commit()
    harness.lose_disk()
    assert dict(harness.partition.items()) == now


def frozen(rows):
    return {key: list(value) if isinstance(value, list) else value for key, value in rows.items()}


def test_a_key_is_encoded_and_logged_once_a_commit():
    encoded = []
    value = value_codec(int)

    class Counting:
        decode = value.decode

        @staticmethod
        def encode(number):
            encoded.append(number)
            return value.encode(number)

    table = KeyedPartition("t", MemoryStore(), key=key_codec(str), value=Counting)
    for number in range(1_000):
        table.put("k", number)
    assert table.cut().changelog == [(b"k", value.encode(999))]
    assert encoded == [999]
    assert table.cut().changelog == []


def test_a_delete_is_a_tombstone():
    harness = Harness(keyed())
    harness.partition.put("k", 1)
    harness.commit()
    harness.partition.delete("k")
    harness.commit()
    assert harness.log[-1] == (b"k", None)
    assert list(harness.partition.items()) == []


def test_eviction_spares_what_changed_while_a_cut_was_flying():
    harness = Harness(keyed(cache_entries=0))
    harness.partition.put("a", 1)
    harness.partition.put("b", 1)
    harness.cut()
    harness.partition.put("a", 2)
    harness.land()
    assert (harness.partition.get("a"), harness.partition.get("b")) == (2, 1)
    harness.commit()
    assert dict(harness.partition.items()) == {"a": 2, "b": 1}


def test_reads_while_a_cut_is_flying_see_what_was_cut():
    """The store still has what was before."""
    harness = Harness(keyed(cache_entries=0))
    harness.partition.put("a", 1)
    harness.commit()
    harness.partition.put("a", 2)
    harness.partition.put("b", 2)
    harness.cut()
    assert (harness.partition.get("a"), harness.partition.get("b")) == (2, 2)
    assert dict(harness.partition.items()) == {"a": 2, "b": 2}
    harness.land()
    assert dict(harness.partition.items()) == {"a": 2, "b": 2}


def test_a_list_stays_a_list_when_it_comes_back():
    """As a value; as a key it becomes a tuple again."""
    harness = Harness(keyed(cache_entries=0, key=None))
    harness.partition.put(("a", (1, 2)), [1, [2]])
    harness.commit()
    assert harness.partition.get(("a", (1, 2))) == [1, [2]]
    assert list(harness.partition.items()) == [(("a", (1, 2)), [1, [2]])]


# --- codecs ------------------------------------------------------------------------------------


class Key(msgspec.Struct, frozen=True, array_like=True):
    """A key of two parts."""

    user: str
    kind: int


@pytest.mark.parametrize(
    ("kind", "key", "raw"),
    [
        (str, "é", "é".encode()),
        (int, -12, b"-12"),
        (bytes, b"\x00", b"\x00"),
        (Key, Key("u", 1), msgspec.msgpack.encode(["u", 1])),
        (tuple[str, int], ("u", 1), msgspec.msgpack.encode(["u", 1])),
        (None, ("u", (1, "x")), msgspec.msgpack.encode(["u", [1, "x"]])),
        (None, 7, b"\x07"),
        (None, "u", msgspec.msgpack.encode("u")),
    ],
)
def test_a_key_has_the_same_bytes_in_every_process(kind, key, raw):
    codec = key_codec(kind)
    assert codec.encode(key) == raw
    assert codec.decode(raw) == key
    hash(codec.decode(raw))


@pytest.mark.parametrize("kind", [str, int, Key, tuple[str, int], None])
def test_foreign_bytes_raise_a_value_error(kind):
    with pytest.raises(ValueError):  # noqa: PT011
        key_codec(kind).decode(b"\xc1\xff")


@given(st.lists(st.integers(-(1 << 62), 1 << 62)))
def test_times_are_ordered_by_their_bytes(times):
    assert sorted(map(encode_time, times)) == list(map(encode_time, sorted(times)))
    assert [decode_time(encode_time(time) + b"rest") for time in times] == times
