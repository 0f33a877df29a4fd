"""What is too large, too deep or too crowded is a dead letter that names its limit."""

from typing import Any

import pytest
from msgspec import Struct

from engine import App, Contract, Limits
from engine.contracts.limits import depth_of, is_deep
from engine.testing import Driver


class Node(Struct):
    name: str
    inner: "Node | None" = None


class Flat(Struct):
    name: str
    tags: list[str] = []


TIGHT = Limits(record_bytes=1_000, depth=5, headers=2, headers_bytes=100)


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        ({"value": b'"' + b"x" * 1_000 + b'"'}, "record.bytes"),
        ({"value": b"[[[[[[1]]]]]]"}, "record.depth"),
        ({"value": b'{"a":{"a":{"a":{"a":{"a":[]}}}}}'}, "record.depth"),
        ({"value": b"[" * 900}, "record.depth"),
        ({"value": b"1", "key": b"k" * 1_001}, "record.bytes"),
        ({"value": b"1", "headers": [("a", b""), ("b", b""), ("c", b"")]}, "headers.count"),
        ({"value": b"1", "headers": [("a", b"x" * 100)]}, "headers.bytes"),
    ],
)
def test_a_record_beyond_a_limit_is_a_dead_letter(given: dict[str, Any], rule: str) -> None:
    """Those around it are not touched."""
    app = App("limits")
    topic = app.topic("in", contract=Contract.of("in", None, limits=TIGHT))
    out = app.topic("out")

    @app.agent(topic, sink=[out])
    async def work(events):
        async for event in events:
            yield event

    with Driver(app) as driver:
        driver.pipe("in", key=b"1", value=b"1")
        driver.pipe("in", **{"key": b"2", **given})
        driver.pipe("in", key=b"3", value=b"[[[[[1]]]]]", headers=[("a", None), ("b", b"x" * 90)])
        assert len(driver.read("out")) == 2
        [letter] = driver.dead_letters("in")
        assert dict(letter.headers)["__contract.rule"].decode() == rule


def test_a_value_too_large_is_found_among_small_ones_and_tombstones() -> None:
    """Where the type leaves nothing open, only the largest of a fetch is looked at."""
    app = App("large")
    contract = Contract.of("in", str, limits=TIGHT, null_values=True)
    topic = app.topic("in", contract=contract)
    out = app.topic("out", value_type=str)

    @app.agent(topic, sink=[out])
    async def work(events):
        async for event in events:
            yield event

    with Driver(app) as driver:
        driver.broker.create("in")
        for value in (b"a", None, b"x" * 1_000, b"x" * 1_001, None, b"b"):
            driver.broker.produce("in", b"k", value, 1)  # one fetch
        driver.settle()
        assert [len(row.value or "") for row in driver.read("out")] == [1, 0, 1_000, 0, 1]
        [letter] = driver.dead_letters("in")
        assert dict(letter.headers)["__contract.rule"] == b"record.bytes"


def test_depth_is_counted_outside_of_texts() -> None:
    """Brackets and quotes in texts are none."""
    assert depth_of(b'{"a":"[[[[","b":"\\"[[","c":[]}') == 2
    assert depth_of(b'"' + b"[" * 100_000) == 0
    assert depth_of(b"[" * 100_000 + b'"') == 100_000


def test_depth_is_looked_at_where_the_type_leaves_it_open() -> None:
    """Else the type is the limit, and looking would be in vain."""
    assert not is_deep(Flat)
    assert not is_deep(dict[str, list[Flat]])
    assert is_deep(Node)
    assert is_deep(dict[str, Any])
    assert is_deep(None)


def test_texts_and_bytes_have_limits_too() -> None:
    """Topics that are no JSON."""
    for kind in (str, bytes):
        checked = Contract.of("raw", kind, limits=TIGHT).check(
            [None] * 2, [b"x" * 1_001, b"[" * 99]
        )
        assert [(i, found.rule) for i, found in checked.broken] == [(0, "record.bytes")]
        assert len(checked.events) == 1
