"""A broken record is named by its rule and its field, never by its value; the others go on."""

import enum
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Struct

from engine import Contract, Rule
from engine.contracts.limits import Limits
from engine.contracts.violations import _named, violation_of
from engine.record import TP, Batch
from engine.topic import Topic
from tables.codec import key_codec


class Kind(enum.Enum):
    """Allowed values."""

    A = "a"


class Point(Struct):
    """A nested object."""

    x: Annotated[int, Meta(ge=0)]


class Named(Struct):
    """Has a pattern, and room for anything beside it."""

    name: Annotated[str, Meta(pattern=r"^user_\d+$")]


class Open(Struct, frozen=True, array_like=True):
    """A key that may hold anything."""

    what: Any


class Circle(Struct, tag="circle"):
    """One of a union."""

    radius: int


class Square(Struct, tag="square"):
    """The other of it."""

    side: int


class Guarded(Struct):
    """Has a check of its own, whose message names the value."""

    number: int

    def __post_init__(self):
        if self.number > 10:
            raise ValueError(f"Expected `int`, got {self.number}")


class Everything(Struct, forbid_unknown_fields=True):
    """A field of each kind."""

    need: int
    number: Annotated[int, Meta(ge=0, lt=100)] = 0
    ratio: Annotated[float, Meta(gt=0)] = 1
    five: Annotated[int, Meta(multiple_of=5)] = 0
    name: Annotated[str, Meta(pattern=r"^user_\d+$")] = "user_1"
    code: Annotated[str, Meta(min_length=2, max_length=3)] = "ab"
    tags: Annotated[list[int], Meta(max_length=2)] = []
    totals: dict[str, int] = {}
    named: dict[Annotated[str, Meta(pattern="^k")], int] = {}
    kind: Kind = Kind.A
    choice: Literal["x", "y"] = "x"
    point: Point | None = None
    points: list[Point] = []
    shape: Circle | Square | None = None
    at: datetime | None = None
    uid: UUID | None = None
    guarded: Guarded | None = None


EVERYTHING = Contract.of("everything", Everything)

BROKEN = [
    ("", "json", ""),
    ("{", "json", ""),
    ('{"need":1}SECRET', "json", ""),
    ('{"need":SECRET}', "json", ""),
    ("[]", "value.type", ""),
    ("null", "value.type", ""),
    ('"SECRET"', "value.type", ""),
    ("{}", "need.required", "need"),
    ('{"need":"SECRET"}', "need.type", "need"),
    ('{"need":null}', "need.type", "need"),
    ('{"need":1.5}', "need.type", "need"),
    ('{"need":1,"SECRET":1}', "value.unknown", ""),
    ('{"need":1,"number":-77777}', "number.range", "number"),
    ('{"need":1,"number":77777}', "number.range", "number"),
    ('{"need":1,"number":77777777777777777777777777}', "number.range", "number"),
    ('{"need":1,"ratio":-0.77777}', "ratio.range", "ratio"),
    ('{"need":1,"ratio":1e77777}', "ratio.range", "ratio"),
    ('{"need":1,"five":77777}', "five.range", "five"),
    ('{"need":1,"name":"SECRET"}', "name.pattern", "name"),
    ('{"need":1,"code":"S"}', "code.length", "code"),
    ('{"need":1,"code":"SECRET"}', "code.length", "code"),
    ('{"need":1,"tags":[1,2,3]}', "tags.length", "tags"),
    ('{"need":1,"tags":[1,"SECRET"]}', "tags[...].type", "tags[1]"),
    ('{"need":1,"totals":{"SECRET":"SECRET"}}', "totals[...].type", "totals[...]"),
    ('{"need":1,"named":{"SECRET":1}}', "named[key].pattern", "named[key]"),
    ('{"need":1,"kind":"SECRET"}', "kind.enum", "kind"),
    ('{"need":1,"choice":"SECRET"}', "choice.enum", "choice"),
    ('{"need":1,"point":{}}', "point.x.required", "point.x"),
    ('{"need":1,"point":{"x":-77777}}', "point.x.range", "point.x"),
    ('{"need":1,"points":[{"x":1},{"x":-77777}]}', "points[...].x.range", "points[1].x"),
    ('{"need":1,"shape":{"type":"SECRET"}}', "shape.type.enum", "shape.type"),
    ('{"need":1,"shape":{"radius":1}}', "shape.type.required", "shape.type"),
    ('{"need":1,"shape":{"type":"square"}}', "shape.side.required", "shape.side"),
    ('{"need":1,"at":"SECRET"}', "at.type", "at"),
    ('{"need":1,"uid":"SECRET"}', "uid.type", "uid"),
    ('{"need":1,"guarded":{"number":77777}}', "guarded.check", "guarded"),
]


@pytest.mark.parametrize(("raw", "rule", "field"), BROKEN)
def test_every_kind_of_fault_has_a_rule_and_a_field_and_hides_the_value(raw, rule, field):
    checked = EVERYTHING.check([b"k"], [raw.encode()])
    assert (checked.events, checked.kept) == ([], [])
    [(index, violation)] = checked.broken
    assert (index, violation.rule, violation.field, violation.severity) == (0, rule, field, "error")
    assert violation.message
    for secret in ("SECRET", "77777"):
        assert secret not in violation.message + violation.rule + violation.field


@pytest.mark.parametrize("raw", [b"\xff", b'{"need":1,"name":"\xff"}'])
def test_bytes_that_are_no_utf_8_are_no_json(raw):
    [(_, violation)] = EVERYTHING.check([None], [raw]).broken
    assert violation.rule == "json"


def test_text_that_is_no_utf_8():
    [(_, violation)] = Contract.of("text", str).check([None], [b"\xff"]).broken
    assert (violation.rule, violation.message) == ("json", "not UTF-8")


@pytest.mark.parametrize("value_type", [None, Everything, list[Point]])
def test_deep_nesting_is_refused_and_harms_nobody(value_type):
    contract = Contract.of("deep", value_type)
    deep = b'{"need":' + b"[" * 200_000
    checked = contract.check([None] * 2, [b"[" * 200_000, deep])
    rules = [violation.rule for _, violation in checked.broken]
    assert rules == ["record.depth"] * 2 or value_type
    assert len(rules) == 2


def test_a_decoder_that_gives_up_on_nesting_is_poison():
    deepest = Limits(depth=1 << 30)
    [(_, violation)] = Contract.of("any", limits=deepest).check([None], [b"[" * 200_000]).broken
    assert (violation.rule, violation.message) == ("json", "nested too deeply")


def test_a_long_text_is_found_however_deep_the_record():
    named = Contract.of("named", Named)
    deep = b'{"more":%b,"name":"user_%b"}' % (b"[" * 700 + b"]" * 700, b"1" * 100_000)
    [(_, violation)] = named.check([None], [deep]).broken
    assert violation.rule == "name.length"


@pytest.mark.parametrize("levels", [700, 4_000, 200_000])
def test_nesting_is_no_harm_to_the_look_for_long_texts(levels):
    """A record that is longer than its pattern's limit is decoded without its type, by hand."""
    named = Contract.of("named", Named)
    nested = b"[" * levels + b"]" * levels
    good = b'{"name":"user_1"}'
    deep = b'{"name":%b,"more":"%b"}' % (nested, b"x" * 100_000)
    checked = named.check([None] * 3, [good, deep, good])
    assert [index for index, _ in checked.broken] == [1]
    assert [event.name for event in checked.events] == ["user_1"] * 2


@pytest.mark.parametrize("error", [TypeError("SECRET"), ValueError("SECRET")])
def test_a_decoder_of_another_kind_is_not_blamed_on_json(error):
    violation = violation_of(b"{}", error)
    assert (violation.rule, violation.message) == ("value.type", "does not fit its type")


def test_messages_with_long_values_in_them_are_not_remembered():
    """They would be as much memory as the records that somebody sends."""
    decode = msgspec.json.Decoder(Literal["a", "b"]).decode
    held = []
    for length in (5, 10_000):
        with pytest.raises(msgspec.ValidationError) as caught:
            decode(b'"' + b"x" * length + b'"')
        assert violation_of(b"", caught.value).rule == "value.enum"
        held.append(_named.cache_info().currsize)
    assert held[0] == held[1] > 0


# --- keys and nulls ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key_type", "levels"), [(Any, 101), (Any, 700), (Any, 200_000), (Open, 200_000)]
)
def test_a_key_that_is_nested_deeply_is_refused_and_harms_nobody(key_type, levels):
    contract = Contract.of("keyed", key_type=key_type)
    good = key_codec(key_type).encode(Open((1, 2)))
    checked = contract.check([good, b"\x91" * levels + b"\x01", good], [b"1", b"2", b"3"])
    assert [(index, violation.rule) for index, violation in checked.broken] == [(1, "key.type")]
    assert checked.events == [1, 3]


def test_a_null_value_breaks_a_stream_and_is_part_of_a_table():
    keys, values = [b"a", b"b"], [None, b"1"]
    for value_type in (None, int, bytes, str):
        stream = Contract.of("stream", value_type).check(keys, values)
        [(index, violation)] = stream.broken
        assert (index, violation.rule, violation.field) == (0, "value.required", "value")
        assert (stream.kept, len(stream.events)) == ([1], 1)
        table = Contract.of("table", value_type, null_values=True).check(keys, values)
        assert (table.events[0], len(table.events), table.kept) == (None, 2, None)


def test_json_null_is_not_a_null_value():
    contract = Contract.of("table", Point, null_values=True)
    assert contract.check([b"k"], [b"null"]).broken[0][1].rule == "value.type"


def test_a_record_without_a_key_breaks_a_contract_that_wants_one():
    contract = Contract.of("keyed", int, key_required=True)
    checked = contract.check([b"a", None, None, b"d"], [b"1", b"2", b"broken", b"4"])
    assert checked.events == [1, 4]
    assert checked.kept == [0, 3]
    assert [(i, v.rule, v.field) for i, v in checked.broken] == [
        (1, "key.required", "key"),
        (2, "json", ""),  # its first fault
    ]


# --- rules with a check --------------------------------------------------------------------------


def even(severity="error"):
    return Rule(
        "value.even",
        severity,
        "is even",
        check=lambda events: [i for i, event in enumerate(events) if event % 2],
    )


def test_a_rule_sees_the_good_events_of_the_batch_and_refuses_some():
    contract = Contract.of("numbers", int, rules=[even()])
    checked = contract.check([None] * 5, [b"1", b"x", b"2", b"3", b"4"])
    assert (checked.events, checked.kept) == ([2, 4], [2, 4])
    assert [(i, v.rule, v.field, v.message) for i, v in checked.broken] == [
        (0, "value.even", "value", "is even"),
        (1, "json", "", "not valid JSON"),
        (3, "value.even", "value", "is even"),
    ]


def test_a_warning_counts_and_lets_pass():
    contract = Contract.of("numbers", int, rules=[even("warning")])
    checked = contract.check([None] * 3, [b"1", b"2", b"3"])
    assert (checked.events, checked.kept, checked.broken) == ([1, 2, 3], None, [])
    assert checked.warned == {"value.even": 2}
    assert contract.check([None], [b"3"]).warned == {"value.even": 1}  # not summed up


def test_rules_are_applied_one_after_the_other():
    small = Rule("value.small", check=lambda events: [i for i, e in enumerate(events) if e > 5])
    seen = []
    last = Rule("value.seen", check=lambda events: seen.extend(events) or ())
    contract = Contract.of("numbers", int, rules=[even(), small, last])
    checked = contract.check([None] * 4, [b"1", b"2", b"8", b"4"])
    assert checked.events == seen == [2, 4]
    assert [(i, v.rule) for i, v in checked.broken] == [(0, "value.even"), (2, "value.small")]


def test_a_rule_that_raises_on_an_event_refuses_that_event():
    tenth = Rule("value.tenth", check=lambda events: [i for i, e in enumerate(events) if 10 % e])
    checked = Contract.of("numbers", int, rules=[tenth]).check([None] * 4, [b"5", b"0", b"3", b"2"])
    assert checked.events == [5, 2]
    assert [(i, v.rule) for i, v in checked.broken] == [(1, "value.tenth"), (2, "value.tenth")]


@pytest.mark.parametrize("nulls", [True, False])
def test_a_rule_is_not_asked_about_tombstones(nulls):
    contract = Contract.of("any", None, rules=[even()], null_values=nulls)
    checked = contract.check([b"k"] * 4, [b"1", None, b"2", b"3"])
    assert checked.events == ([None, 2] if nulls else [2])
    assert [i for i, v in checked.broken if v.rule == "value.even"] == [0, 3]


def test_the_rules_of_a_type_are_listed():
    names = {rule.name for rule in EVERYTHING.rules}
    assert {"json", "need.required", "number.range", "name.pattern", "code.length", "kind.enum",
            "choice.enum"} <= names  # fmt: skip
    assert {rule.name for rule in Contract.of("any").rules} == {"json"}


# --- alignment -----------------------------------------------------------------------------------

values = st.sampled_from([
    b"0", b"1", b"2", b"3", b"77", b"-1", b"x", b"", b"[", b'"s"', b"null", None, b"[" * 100_000
])  # fmt: skip
records = st.lists(st.tuples(st.none() | st.just(b"k"), values), max_size=30)


@given(records, st.booleans(), st.booleans(), st.sampled_from(["error", "warning"]))
def test_a_batch_is_judged_as_its_records_are_one_by_one(records, key_required, nulls, severity):
    odd = Rule(
        "value.odd", severity,
        check=lambda events: (i for i, e in enumerate(events) if isinstance(e, int) and e % 2),
    )  # fmt: skip
    contract = Contract.of(
        "c", Annotated[int, Meta(ge=0, le=10)], rules=[odd], key_required=key_required,
        null_values=nulls,
    )  # fmt: skip
    keys = [key for key, _ in records]
    raws = [raw for _, raw in records]
    checked = contract.check(keys, raws)
    alone = [contract.check([key], [raw]) for key, raw in records]
    assert checked.events == [event for one in alone for event in one.events]
    kept = checked.kept if checked.kept is not None else list(range(len(records)))
    assert kept == [index for index, one in enumerate(alone) if one.events]
    assert checked.broken == [
        (index, violation) for index, one in enumerate(alone) for _, violation in one.broken
    ]
    assert sum(checked.warned.values()) == sum(sum(one.warned.values()) for one in alone)


@given(records)
def test_a_run_keeps_its_columns_side_by_side(records):
    topic = Topic("t", Contract.of("t", int, event_time=lambda event: 1_000 + event))
    batch = Batch(TP("t", 0), len(records) * 2 + 1)
    for number, (key, raw) in enumerate(records):
        batch.offsets.append(number * 2)
        batch.keys.append(key)
        batch.values.append(raw)
        batch.timestamps.append(number)
        batch.headers.append((("n", b"%d" % number),))
    run, checked = topic.decode(batch)
    assert run.next_offset == batch.next_offset
    assert len(run.offsets) + len(checked.broken) == len(records)
    for i, offset in enumerate(run.offsets):
        number = offset // 2
        assert run.keys[i] == records[number][0]
        assert run.values[i] == records[number][1]
        assert run.events[i] == msgspec.json.decode(records[number][1])
        assert run.timestamps[i] == number
        assert run.headers[i] == (("n", b"%d" % number),)
        assert run.times[i] == 1_000 + run.events[i]


def test_a_tombstone_has_the_time_of_its_record():
    """Where the contract reads the time from the event, and there is no event."""
    contract = Contract.of("t", Point, null_values=True, event_time="x")
    batch = Batch(TP("t", 0), 2)
    batch.offsets, batch.keys = [0, 1], [b"a", b"a"]
    batch.values, batch.timestamps, batch.headers = [b'{"x":5}', None], [70, 71], [(), ()]
    run, _ = Topic("t", contract).decode(batch)
    assert run.times == [5, 71]


@pytest.mark.parametrize(
    ("key_type", "good", "bad"),
    [(str, b"a", b"\xff"), (int, b"12", b"x"), (tuple[int], b"\x91\x01", b"a")],
)
def test_a_key_of_another_type_is_refused(key_type, good, bad):
    contract = Contract.of("keyed", int, key_type=key_type)
    checked = contract.check([good, bad, None, good, bad], [b"1", b"2", b"3", b"x", b"x"])
    assert (checked.events, checked.kept) == ([1, 3], [0, 2])
    assert [(i, v.rule, v.field) for i, v in checked.broken] == [
        (1, "key.type", "key"),
        (3, "json", ""),
        (4, "json", ""),
    ]
