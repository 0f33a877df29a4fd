"""Patterns that could hang the loop are refused; ordinary ones pass, and are fast."""

import re
import time
from typing import Annotated

import msgspec
import pytest
from msgspec import Meta, Struct

from engine.contracts.automaton import Automaton
from engine.contracts.contract import Contract
from engine.contracts.patterns import LENGTHS, TRIAL_MS, text_limits
from engine.errors import ConfigError


def limits(pattern: str, **meta: int) -> int | None:
    found = text_limits("orders", Annotated[str, Meta(pattern=pattern, **meta)])
    return found[0].characters if found else None


@pytest.mark.parametrize(
    "pattern",
    [
        r"^(a+)+$",
        r"(a|aa)+$",
        r"(a|a)*$",
        r"(a*)*b",
        r"(.*a){20}",
        r"(x+x+)+y",
        r"^(\w+\s?)+$",
        r"^(?:(?:a?)+)+$",
        r"((a+)*b?)+c",
        r"([a-z]+,?)*$",
        r"(?>(a+)+b)",
        r"x(?=(a+)+b)",
        r"(?i)^(ab|AB)+$",
        r"^(([a-z])+.)+[A-Z]([a-z])+$",
        r"^([a-zA-Z0-9])(([\-.]|[_]+)?([a-zA-Z0-9]+))*(@){1}[a-z0-9]+[.]{1}(([a-z]{2,3}))$",
        r"a*a*a*a*a*a*a*a*b$",
    ],
)
def test_a_pattern_that_could_hang_the_loop_is_refused(pattern: str) -> None:
    """Soon, with the field, the pattern and what to do about it."""
    began = time.monotonic()
    with pytest.raises(ConfigError) as caught:
        limits(pattern)
    assert time.monotonic() - began < 20
    assert repr(pattern) in str(caught.value)
    assert "rewrite it" in str(caught.value) or "leave one out" in str(caught.value)


def test_a_back_reference_is_refused() -> None:
    """There is no bound on what it costs."""
    with pytest.raises(ConfigError, match="back-reference"):
        limits(r"(a+)b\1")


ORDINARY = {
    r"^user_\d+$": "user_77",
    r"^[^@\s]+@[^@\s]+\.[^@\s]+$": "ann@example.com",
    r"^[\w.+-]+@[\w-]+\.[\w.-]+$": "ann@example.com",
    r"^\d{4}-\d{2}-\d{2}$": "2026-11-24",
    r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})$": "2026-11-24T10:00:00Z",
    r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$": "123e4567-e89b-12d3-a456-426614174000",
    r"^https?://": "https://example.com/",
    r"^(\d{1,3}\.){3}\d{1,3}$": "10.0.0.1",
    r"^[a-z0-9]+(-[a-z0-9]+)*$": "a-slug-of-words",
    r"^[A-Z]{2}$": "DE",
    r"^\+?\d{7,15}$": "+4930123456",
    r"^v?\d+\.\d+\.\d+$": "1.2.3",
    r"^(?i:get|post|put)$": "GET",
}


@pytest.mark.parametrize("pattern", ORDINARY)
def test_ordinary_patterns_pass(pattern: str) -> None:
    """And keep what they mean, at every length that is allowed within the time."""
    most = limits(pattern)
    assert most in LENGTHS
    search = re.compile(pattern).search
    assert search(ORDINARY[pattern])
    for head, pump, tail in Automaton(pattern).hostile():
        text = (head + pump * (most // len(pump)))[: most - len(tail)] + tail
        times = []
        for _ in range(3):
            began = time.perf_counter()
            search(text)
            times.append(1000 * (time.perf_counter() - began))
        assert min(times) < 3 * TRIAL_MS


def test_a_long_field_must_name_a_length_that_its_pattern_can_do() -> None:
    """Quadratic patterns do short texts."""
    assert limits(r"^[^@\s]+@[^@\s]+\.[^@\s]+$", max_length=254) is None
    with pytest.raises(ConfigError, match="smaller max_length"):
        limits(r"^[^@\s]+@[^@\s]+\.[^@\s]+$", max_length=100_000)


class Address(Struct):
    email: Annotated[str, Meta(pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$")]
    note: str = ""


class Order(Struct):
    to: Address
    more: list[Address] = []
    tags: dict[Annotated[str, Meta(pattern="^[a-z]+$")], str] = {}


def test_patterns_are_found_wherever_a_type_has_them() -> None:
    """In lists, in dicts' keys, in types within types."""
    assert {limit.field for limit in text_limits("orders", Order)} == {"email", "tags"}


def test_a_long_text_never_reaches_a_slow_pattern() -> None:
    """A text of a megabyte is a dead letter in no time; long texts elsewhere pass."""
    contract = Contract.of("orders", Order)
    bad = "a@" + "." * 1_000_000 + "\n\n"
    good = {"to": {"email": "a@b.c", "note": "x" * 100_000}}
    values = [
        msgspec.json.encode(each)
        for each in (
            good,
            {"to": {"email": bad}},
            {"to": {"email": "a@b.c"}, "more": [{"email": bad}]},
            {"to": {"email": "a@b.c"}, "tags": {"x" * 5_000: "y"}},
        )
    ]
    began = time.monotonic()
    checked = contract.check([None] * 4, values)
    assert time.monotonic() - began < 2
    assert [(i, found.rule) for i, found in checked.broken] == [
        (1, "email.length"),
        (2, "email.length"),
        (3, "tags.length"),
    ]
    assert len(checked.events) == 1
