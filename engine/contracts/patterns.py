r"""Patterns that could hang the loop are refused when a contract is made.

msgspec runs ``pattern`` through Python's ``re``, which tries one way after the other: a pattern
with two ways to match the same text can take a time that doubles with each character. RE2 cannot,
but it is called from Python: 5.0 us for ``^user_\d+$`` where ``re`` takes 0.25 (measured), an
event. So patterns stay where they are, and are looked at once, in two steps:

1. By structure (:mod:`engine.contracts.automaton`): a repetition that can go round in two ways over
   the same text takes exponential time. Back-references are refused with it.
2. By trial: texts that are made to fail, as long as the field's ``max_length`` allows. They must
   take less than :data:`TRIAL_MS`; that finds what grows with a power of the length.

A field without ``max_length`` gets the longest of :data:`LENGTHS` that passes the trial; see
:func:`overlong` for how it is kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import inspect

from engine.clock import SystemClock
from engine.contracts.automaton import Automaton
from engine.errors import ConfigError

TRIAL_MS = 10.0
LENGTHS = (4_096, 1_024, 256)
"""Characters. Linear patterns pass the first; one for e-mail may be quadratic, and pass later."""
SHORT = 64
"""Characters. Up to here a text grows slowly: its time might double with each."""


class TextLimit(msgspec.Struct, frozen=True):
    """How long a text with a pattern and without ``max_length`` may be.

    Attributes:
        field: the name of the field; empty: any text of the record.
        characters: at most.
    """

    field: str
    characters: int


def text_limits(contract: str, value_type: Any) -> tuple[TextLimit, ...]:
    """Check the patterns of a type; return the limits of the fields that name none.

    Raises:
        ConfigError: a pattern could hang the loop; the message names the field and the fix.
    """
    try:
        info = inspect.type_info(value_type)
    except (TypeError, ValueError):  # a type of the user's own, decoded by the user's own code
        return ()
    limits: dict[str, int] = {}
    for field, text in _texts(info, "", set()):
        assert text.pattern is not None
        where = f"contract {contract}: the pattern of {field or 'its texts'}, {text.pattern!r},"
        most = _longest(where, text.pattern, text.max_length)
        if text.max_length is None:
            limits[field] = min(most, limits.get(field, most))
    return tuple(TextLimit(field, most) for field, most in sorted(limits.items()))


def _texts(info: Any, field: str, seen: set[Any]) -> Iterator[tuple[str, Any]]:
    """Yield every text with a pattern, with the name of the field that it is in."""
    if isinstance(info, inspect.StrType):
        if info.pattern is not None:
            yield field, info
        return
    kind = getattr(info, "cls", None)
    if kind is not None:
        if kind in seen:
            return
        seen = {*seen, kind}
    fields = getattr(info, "fields", ())
    for each in fields:
        yield from _texts(
            each.type, "" if getattr(info, "array_like", False) else each.encode_name, seen
        )
    for name in ("type", "item_type", "key_type", "value_type"):
        if isinstance(getattr(info, name, None), inspect.Type):
            yield from _texts(getattr(info, name), field, seen)
    for name in ("types", "item_types"):
        for each in getattr(info, name, ()):
            yield from _texts(each, field, seen)


_checked: dict[tuple[str, int | None], int] = {}


def _longest(where: str, pattern: str, max_length: int | None) -> int:
    """Return how long a text may be for this pattern."""
    known = _checked.get((pattern, max_length))
    if known is not None:
        return known
    automaton = Automaton(pattern)
    if automaton.fault:
        raise ConfigError(f"{where} {automaton.fault}")
    texts = list(automaton.hostile())
    search = re.compile(pattern).search
    for most in LENGTHS if max_length is None else (max_length,):
        if all(_passes(search, text, most) for text in texts):
            _checked[pattern, max_length] = most
            return most
    asked = min(LENGTHS) if max_length is None else max_length
    raise ConfigError(
        f"{where} takes more than {TRIAL_MS:g} ms for texts of up to {asked:,} characters: rewrite "
        "it so that each text can match in one way only, or give the field a smaller max_length"
    )


def _passes(search: Any, text: tuple[str, str, str], most: int) -> bool:
    """Say whether a text that grows up to ``most`` characters is searched in time."""
    head, pump, tail = text
    length = 16.0
    while True:
        count = max(0, int(min(length, most)) - len(head) - len(tail)) // len(pump)
        if _fastest_ms(search, head + pump * count + tail) > TRIAL_MS:
            return False
        if length >= most:
            return True
        length *= 1.3 if length < SHORT else 2  # a bad pattern is found out in a second or so


def _fastest_ms(search: Any, text: str) -> float:
    """Return the time of one search, the best of three if it looks too long: others work here."""
    clock = SystemClock()
    best = float("inf")
    for _ in range(3):
        began = clock.elapsed_ms()
        search(text)
        best = min(best, clock.elapsed_ms() - began)
        if best <= TRIAL_MS:
            break
    return best


def overlong(value: bytes, limits: tuple[TextLimit, ...]) -> str | None:
    """Return the field whose text is longer than its pattern allows; None if there is none.

    For records that are longer than the limit, which few are: they are decoded once more, without
    the type, whose decoder would run the pattern.
    """
    try:
        record = msgspec.json.decode(value)
    except (ValueError, RecursionError):
        return None  # the contract's own decoder says what is wrong
    for limit in limits:
        if _has_long(record, limit.field, limit.characters, inside=not limit.field):
            return limit.field or "value"
    return None


def _has_long(record: Any, field: str, most: int, *, inside: bool) -> bool:
    """Look for a text on a stack of our own: how deep a record is nested is its sender's choice."""
    left = [(record, inside)]
    while left:
        value, inside = left.pop()
        if isinstance(value, str):
            if inside and len(value) > most:
                return True
        elif isinstance(value, list):
            left += [(each, inside) for each in value]
        elif isinstance(value, dict):
            if inside and any(len(key) > most for key in value):
                return True
            left += [(each, inside or key == field) for key, each in value.items()]
    return False
