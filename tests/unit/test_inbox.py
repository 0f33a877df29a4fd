"""Inputs of a task are taken by timestamp, so a join does not depend on who was fetched first."""

from hypothesis import given
from hypothesis import strategies as st

from engine.inbox import Inbox, Input
from engine.record import RECORD_BYTES, TP, Batch

ALL = 1 << 30


def batch_of(tp, records, start=0, next_offset=None, value=b""):
    """Records are timestamps; offsets have gaps of one, as after transaction markers."""
    batch = Batch(tp, next_offset if next_offset is not None else start + 2 * len(records))
    batch.offsets = [start + 2 * i for i in range(len(records))]
    batch.timestamps = list(records)
    batch.keys = [None] * len(records)
    batch.values = [value] * len(records)
    batch.headers = [()] * len(records)
    return batch


def make_inbox(ends, tables=(), gates=None):
    inputs = []
    for name, end in ends.items():
        each = Input(TP(name, 0), is_table=name in tables, end=lambda _, end=end: end)
        each.gate = (gates or {}).get(name, 0)
        inputs.append(each)
    return Inbox(inputs)


def drain(inbox, limit=ALL):
    """Take all there is: (topic, timestamp) of each record."""
    taken = []
    while (batch := inbox.next(limit)) is not None:
        assert len(batch) <= limit
        taken += [(batch.tp.topic, ts) for ts in batch.timestamps]
    return taken


def fill(inbox, **queues):
    for name, times in queues.items():
        each = inbox.inputs[TP(name, 0)]
        each.add(batch_of(TP(name, 0), times, each.received))


def test_inputs_are_interleaved_by_timestamp():
    inbox = make_inbox({"a": 6, "b": 6})
    fill(inbox, a=[1, 4, 5], b=[2, 3, 6])
    assert drain(inbox) == [("a", 1), ("b", 2), ("b", 3), ("a", 4), ("a", 5), ("b", 6)]


def test_at_equal_timestamps_the_table_goes_first():
    """Also when the stream's record stands behind others of its own."""
    for table_name in ("a", "z"):
        inbox = make_inbox({"m": 6, table_name: 4}, tables=[table_name])
        fill(inbox, m=[3, 5, 7], **{table_name: [5, 7]})
        assert drain(inbox) == [
            ("m", 3), (table_name, 5), ("m", 5), (table_name, 7), ("m", 7)
        ]  # fmt: skip


def test_at_equal_timestamps_streams_go_by_their_names():
    for queues in ({"a": [3, 5], "b": [4, 5]}, {"b": [4, 5], "a": [3, 5]}):
        inbox = make_inbox({"a": 4, "b": 4})
        fill(inbox, **queues)
        assert drain(inbox) == [("a", 3), ("b", 4), ("a", 5), ("b", 5)]


def test_an_input_that_is_behind_holds_the_others_back():
    inbox = make_inbox({"a": 2, "b": 4})
    fill(inbox, a=[10])
    assert inbox.next(ALL) is None
    fill(inbox, b=[9])
    assert drain(inbox) == [("b", 9)]  # b has more to come
    fill(inbox, b=[11])
    assert drain(inbox) == [("a", 10), ("b", 11)]


def test_an_input_whose_end_is_not_known_holds_the_others_back():
    inbox = make_inbox({"a": 2, "b": None})
    fill(inbox, a=[10])
    assert inbox.next(ALL) is None


def test_an_input_that_is_at_its_end_holds_nobody_back():
    inbox = make_inbox({"a": 4, "b": 0})
    fill(inbox, a=[10, 11])
    assert drain(inbox) == [("a", 10), ("a", 11)]


# --- the gate ------------------------------------------------------------------------------------


def test_streams_wait_for_the_table_up_to_the_gate():
    inbox = make_inbox({"s": 2, "t": 8}, tables=["t"], gates={"t": 6})
    fill(inbox, s=[1])
    assert inbox.next(ALL) is None
    fill(inbox, t=[50, 60])
    assert drain(inbox) == [("t", 50), ("t", 60)]
    fill(inbox, t=[70, 80])
    assert drain(inbox) == [("t", 70), ("s", 1), ("t", 80)]


def test_a_batch_that_reaches_over_the_gate_is_read_up_to_it():
    """What was there at the start comes before any stream, however it was fetched."""
    inbox = make_inbox({"s": 4, "t": 8}, tables=["t"], gates={"t": 6})
    fill(inbox, s=[1, 75], t=[50, 60, 70, 80])
    assert drain(inbox) == [
        ("t", 50), ("t", 60), ("t", 70), ("s", 1), ("s", 75), ("t", 80)
    ]  # fmt: skip


def test_an_empty_batch_passes_the_gate():
    """It was markers only."""
    inbox = make_inbox({"s": 2, "t": 6}, tables=["t"], gates={"t": 6})
    each = inbox.inputs[TP("t", 0)]
    each.add(batch_of(TP("t", 0), [], 0, next_offset=6))
    fill(inbox, s=[1])
    first = inbox.next(ALL)
    assert (first.tp.topic, len(first), first.next_offset) == ("t", 0, 6)
    assert drain(inbox) == [("s", 1)]


# --- parts ---------------------------------------------------------------------------------------


def test_a_part_ends_where_the_next_one_begins():
    """And the last one where the batch does, markers included."""
    inbox = make_inbox({"a": 10})
    [a] = inbox.inputs.values()
    a.add(batch_of(a.tp, [1, 2, 3], 1, next_offset=10))
    parts = [inbox.next(2), inbox.next(2)]
    assert [part.timestamps for part in parts] == [[1, 2], [3]]
    assert [part.offsets for part in parts] == [[1, 3], [5]]
    assert [part.next_offset for part in parts] == [5, 10]
    assert (a.records, inbox.next(2)) == (0, None)


def test_full_counts_records():
    inbox = make_inbox({"a": 6, "b": 2})
    fill(inbox, a=[1, 2, 3], b=[2])
    assert inbox.full(3, ALL) == [TP("a", 0)]
    assert inbox.full(1, ALL) == [TP("a", 0), TP("b", 0)]
    inbox.next(ALL)
    assert inbox.full(3, ALL) == []


def test_full_counts_bytes():
    """Few large records fill an input too."""
    inbox = make_inbox({"a": 6, "b": 2})
    a, b = inbox.inputs.values()
    a.add(batch_of(a.tp, [1, 2, 3], value=b"x" * 5000))
    b.add(batch_of(b.tp, [9], value=b"x" * 10))
    large, small = RECORD_BYTES + 5000, RECORD_BYTES + 10
    assert (inbox.full(ALL, 3 * large), inbox.full(ALL, 3 * large + 1)) == ([a.tp], [])
    inbox.next(2)
    assert (a.bytes, b.bytes) == (large, small)
    drain(inbox)
    assert (a.bytes, b.bytes) == (0, 0)


times = st.lists(st.integers(0, 6), max_size=8)


@given(
    st.dictionaries(st.sampled_from("abcd"), times, min_size=1),
    st.sets(st.sampled_from("abcd")),
    st.randoms(use_true_random=False),
    st.sampled_from([1, 2, 3, ALL]),
)
def test_it_is_the_record_by_record_choice_however_batches_come(queues, tables, random, limit):
    """The reference takes one record at a time: smallest head, tables first, then by name."""
    rest = {name: list(times) for name, times in queues.items() if times}
    expected = []
    while rest:
        name = min(rest, key=lambda name: (rest[name][0], name not in tables, name))
        expected.append((name, rest[name].pop(0)))
        if not rest[name]:
            del rest[name]
    inbox = make_inbox({name: 2 * len(times) for name, times in queues.items()}, tables)
    got = []
    pending = [(name, list(times)) for name, times in queues.items() if times]
    while pending:
        at = random.randrange(len(pending))
        name, left = pending[at]
        size = random.randint(1, len(left))
        fill(inbox, **{name: left[:size]})
        pending[at] = (name, left[size:])
        pending = [(name, left) for name, left in pending if left]
        if random.random() < 0.5:
            got += drain(inbox, limit)
    got += drain(inbox, limit)
    assert got == expected
    assert all(each.records == 0 for each in inbox.inputs.values())
