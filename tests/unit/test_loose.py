"""Patterns checked by the batch give what msgspec gives, record for record."""

import gc
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Struct

from agents.contracts import RAW_EVENTS, RawEvent
from agents.workload import Workload
from engine.contracts.contract import Contract
from engine.contracts.loose import Column, loose

Name = Annotated[str, Meta(pattern="^[a-z]+$", max_length=5)]


class Base(Struct, frozen=True, kw_only=True, rename="camel"):
    first_name: Name
    age: Annotated[int, Meta(ge=0)] = 3


class Person(Base, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    last_name: Name
    tags: list[str] = []


class Checked(Struct):
    name: Name

    def __post_init__(self) -> None:
        if self.name == "x":
            raise ValueError


class Hashed(Struct, frozen=True, cache_hash=True):
    name: Name


texts = st.sampled_from(["a", "abc", "zz", "abcdef", "A", "", "a\n", "é", 1, None])
people = st.fixed_dictionaries(
    {},
    optional={
        "firstName": texts,
        "lastName": texts,
        "age": st.sampled_from([0, -1, "x"]),
        "tags": st.sampled_from([[], ["a"], [1]]),
        "more": st.just(1),
    },
)
records = st.one_of(people.map(msgspec.json.encode), st.sampled_from([None, b"", b"{", b"[]"]))


@given(nulls=st.booleans(), batches=st.lists(st.lists(records, max_size=12), max_size=4))
def test_the_same_events_and_violations_as_one_by_one(
    *, nulls: bool, batches: list[list[bytes | None]]
) -> None:
    quick = Contract.of("people", Person, null_values=nulls)
    assert quick.loose is not None
    strict = msgspec.structs.replace(quick, loose=None)
    for values in batches:
        keys = [b"k"] * len(values)
        found, expected = quick.check(keys, values), strict.check(keys, values)
        assert found == expected
        assert all(type(event) in {Person, type(None)} for event in found.events)


def test_the_main_jobs_invalid_events_break_the_same_rules() -> None:
    rows = list(Workload(events=4_000, users=50, seed=7, invalid_ratio=0.2).raw_events())
    keys, values = [key for key, _, _ in rows], [value for _, value, _ in rows]
    contract = RAW_EVENTS.contract
    assert contract.loose is not None
    found = contract.check(keys, values)
    assert len(found.broken) == 800
    assert found == msgspec.structs.replace(contract, loose=None).check(keys, values)


def test_an_event_is_of_the_declared_type_in_every_way() -> None:
    contract = RAW_EVENTS.contract
    _, value, _ = next(Workload(events=1, users=1, seed=1, invalid_ratio=0).raw_events())
    [event] = contract.check([b"user_0"], [value]).events
    assert type(event) is RawEvent
    assert event == msgspec.json.decode(value, type=RawEvent)
    assert msgspec.json.encode(event) == msgspec.json.encode(contract.decode(value))
    with pytest.raises(AttributeError, match="immutable"):
        event.page = "/"


def test_only_so_many_texts_are_remembered() -> None:
    column = Column("first_name", "^[a-z]$", most=3)
    people = [Person(first_name=name, last_name="x") for name in ("a", "b", "D", "c")]
    assert column.breaking(people) == [2]
    assert column.known == {"a", "b", "c"}
    people = [Person(first_name=name, last_name="x") for name in ("d", "E", "a")]
    assert column.breaking(people) == [1]
    assert column.known == {"d"}  # what was there had to go; "a" is matched again next time
    assert column.breaking(people) == [1]


@pytest.mark.parametrize("value_type", [Checked, Hashed, str, None, list[Person], Base | None])
def test_no_twin_where_it_would_not_be_the_same(value_type: Any) -> None:
    assert loose(value_type) is None


def test_a_refused_record_leaves_no_cycle_that_holds_its_batch() -> None:
    """The cycle collector looks rarely (``collect_after``): batches would pile up until then."""
    contract = Contract.of("people", Person)
    values = [b'{"firstName":"A","lastName":"x"}', b"{", b'{"firstName":"a","lastName":1}', None]
    contract.check([None] * 4, values)
    gc.collect()
    gc.disable()
    try:
        for _ in range(10):
            assert len(contract.check([None] * 4, values).broken) == 4
        assert gc.collect() == 0
    finally:
        gc.enable()
