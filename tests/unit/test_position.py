"""A committed offset is the lowest of its consumers'; the others are named beside it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.edges import Position
from engine.position import Notes, pack, unpack

names = st.text(max_size=5)
offsets = st.integers(0, 1 << 62)


@given(
    st.dictionaries(names, offsets, min_size=1, max_size=4),
    st.dictionaries(names, st.integers(-5, 1 << 62), max_size=3),
    offsets,
)
def test_nothing_is_lost(consumers, times, gate):
    position = pack(consumers, times, gate)
    notes = unpack(position)
    assert position.offset == min(consumers.values())
    assert {name: notes.ahead.get(name, position.offset) for name in consumers} == consumers
    assert notes.times == times
    assert notes.gate == (gate if gate > position.offset else 0)


def test_the_usual_case_costs_no_metadata():
    assert pack({"a": 7, "b": 7}, {}) == Position(7, "")
    assert pack({"a": 7}, {}, gate=7) == Position(7, "")


def test_the_metadata_is_small():
    """Kafka takes 4,096 bytes."""
    consumers = {f"agent-with-a-long-name-{n}": 10**12 + n for n in range(20)}
    assert len(pack(consumers, {"sessions": 1_700_000_000_000}, 1 << 60).metadata) < 1_000


@pytest.mark.parametrize(
    "metadata", ["", "x", "{", "[]", "null", "1", '{"ahead":5}', '{"times":{"a":"b"}}', "é\x00"]
)
def test_foreign_metadata_counts_as_none(metadata):
    assert unpack(Position(5, metadata)) == Notes()


def test_no_position_has_no_notes():
    assert unpack(None) == Notes()


def test_metadata_of_a_later_version_is_read_as_far_as_known():
    assert unpack(Position(5, '{"ahead":{"a":6},"more":[1]}')) == Notes({"a": 6})
