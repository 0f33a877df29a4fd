"""Which rule a record broke, in words that name the field and never the value."""

from __future__ import annotations

import functools
import re

import msgspec

from engine.contracts.limits import Violation

_AT = re.compile(r" - at (`key` in )?`\$?\.?([^`]*)`$")
_MISSING = re.compile(r"missing required field `([^`]+)`")
_INDEX = re.compile(r"\[\d+\]")
_KINDS = (
    ("missing required field", "required"),
    ("Invalid enum value", "enum"),
    ("Invalid value", "enum"),
    ("matching regex", "pattern"),
    ("of length", "length"),
    ("out of range", "range"),
    ("multiple of", "range"),
    ("that's a", "range"),
    ("unknown field", "unknown"),
)
_MESSAGES = {
    "enum": "not one of the allowed values",
    "unknown": "has a field that is not declared",
    "check": "refused by a check of its type",
}
"""Said instead of msgspec's text, which would name the value."""


def violation_of(value: bytes | None, error: BaseException) -> Violation:
    """Name the rule that ``error``, raised while decoding ``value``, stands for."""
    if value is None:
        return Violation("value.required", "value", "the record has no value")
    if not isinstance(error, msgspec.ValidationError):
        return _unreadable(error)
    text, raised = str(error), error.__cause__ is not None  # e.g. by __post_init__
    return (_named_anew if len(text) > _MEMO_CHARS else _named)(text, raised)


def _named_anew(text: str, raised: bool) -> Violation:  # noqa: FBT001
    """Name the rule that a message of msgspec's stands for."""
    at = _AT.search(text)
    field = at.group(2) + ("[key]" if at.group(1) else "") if at else ""
    missing = _MISSING.search(text)
    if missing:
        field = f"{field}.{missing.group(1)}" if field else missing.group(1)
    kind = "check" if raised else _kind(text)
    place = _INDEX.sub("[...]", field) or "value"  # rules are few: they name metrics
    return Violation(f"{place}.{kind}", field, _MESSAGES.get(kind) or _AT.sub("", text))


_MEMO_CHARS = 200
"""A longer message has a value in it, and does not come again."""
_named = functools.lru_cache(1_000)(_named_anew)


def _unreadable(error: BaseException) -> Violation:
    """Name the rule for a value that is not JSON, or that a decoder of another kind refuses."""
    if isinstance(error, RecursionError):
        return Violation("json", "", "nested too deeply")
    if isinstance(error, UnicodeError):
        return Violation("json", "", "not UTF-8")
    if isinstance(error, msgspec.DecodeError):
        return Violation("json", "", "not valid JSON")
    return Violation("value.type", "", "does not fit its type")


def _kind(text: str) -> str:
    for mark, kind in _KINDS:
        if mark in text:
            return kind
    return "range" if re.search(r"(<|>)=? ", text) else "type"
