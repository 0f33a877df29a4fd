"""What a record may measure before it is decoded: bytes, nesting, headers.

A record beyond a limit is a dead letter, like any that breaks its contract. The defaults are far
above what is usual; they are there for what is sent to do harm.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import inspect

from engine.contracts.patterns import TextLimit, overlong

if TYPE_CHECKING:
    from engine.record import Headers


class Violation(msgspec.Struct, frozen=True):
    """Why a record is not taken."""

    rule: str
    field: str
    message: str
    severity: str = "error"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What the records of a contract may measure.

    Attributes:
        record_bytes: of the value, and of the key.
        depth: objects and arrays within each other. Looked at where the type leaves it open (any
            JSON, types that contain themselves); elsewhere the type is the limit.
        headers: how many.
        headers_bytes: their names and values together.
    """

    record_bytes: int = 4 << 20
    depth: int = 100
    headers: int = 128
    headers_bytes: int = 64 << 10


class Gauge(msgspec.Struct, frozen=True):
    """Measures records for a contract.

    Attributes:
        most: a value of no more bytes needs no look; -1: each does.
        texts: how long texts with a pattern may be, where their type does not say.
        deep: whether the type leaves the nesting open.
    """

    limits: Limits
    most: int
    texts: tuple[TextLimit, ...] = ()
    deep: bool = False

    @classmethod
    def of(cls, limits: Limits, texts: tuple[TextLimit, ...] = (), *, deep: bool = False) -> Gauge:
        """Return the gauge for limits and what is known of the type."""
        least = min([limits.record_bytes, *(text.characters for text in texts)])
        return cls(limits, -1 if deep else least, texts, deep)

    def measure(self, value: bytes) -> Violation | None:
        """Return what is wrong with a value of more than ``most`` bytes, before it is decoded."""
        limits = self.limits
        if len(value) > limits.record_bytes:
            return _bytes("value", limits)
        if self.deep and _may_be_deep(value, limits.depth) and depth_of(value) > limits.depth:
            return Violation("record.depth", "value", f"nested more than {limits.depth} deep")
        field = overlong(value, self.texts) if self.texts else None
        if field is not None:
            message = "longer than its pattern allows, and its type has no max_length"
            return Violation(f"{field}.length", field, message)
        return None

    def heavy_values(
        self, values: Sequence[bytes | None], largest: int | None = None
    ) -> dict[int, Violation]:
        """Return what is wrong with values, before they are decoded, by index.

        Args:
            largest: none has more bytes; None: nobody knows.
        """
        if largest is None:
            largest = max(map(len, filter(None, values)), default=0)
        if largest <= self.most:
            return {}  # nearly always
        large = [i for i, value in enumerate(values) if value and len(value) > self.most]
        return {i: wrong for i in large if (wrong := self.measure(values[i]))}  # type: ignore[arg-type]

    def heavy_keys(self, keys: Sequence[bytes | None]) -> dict[int, Violation]:
        """Return what is wrong with keys that are too large, by index."""
        most, found = self.limits.record_bytes, _bytes("key", self.limits)
        return {i: found for i, key in enumerate(keys) if key is not None and len(key) > most}

    def crowded(self, headers: Sequence[Headers]) -> dict[int, Violation]:
        """Return what is wrong with headers that are too many or too large, by index."""
        limits = self.limits
        many = Violation("headers.count", "headers", f"more than {limits.headers:,}")
        large = Violation("headers.bytes", "headers", f"over {limits.headers_bytes:,} together")
        found: dict[int, Violation] = {}
        for index, each in enumerate(headers):
            if each and len(each) > limits.headers:
                found[index] = many
            elif each and headers_bytes(each) > limits.headers_bytes:
                found[index] = large
        return found


def _may_be_deep(value: bytes, depth: int) -> bool:
    return value.count(b"{") + value.count(b"[") > depth


def _bytes(field: str, limits: Limits) -> Violation:
    return Violation("record.bytes", field, f"larger than {limits.record_bytes:,} bytes")


def headers_bytes(headers: Headers) -> int:
    """Return the size of a record's headers."""
    return sum([len(name) + len(value or b"") for name, value in headers])


_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_BRACKETS = re.compile(rb"[^\[\]{}]+")


def depth_of(value: bytes) -> int:
    """Return how deep JSON is nested; what is no JSON has some depth too."""
    depth = deepest = 0
    for bracket in _BRACKETS.sub(b"", _STRING.sub(b"", value)):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def is_deep(value_type: Any) -> bool:
    """Say whether a type leaves open how deep its values are nested."""
    if value_type is None or value_type is Any:
        return True
    if value_type is bytes or value_type is str:
        return False
    try:
        return _open(inspect.type_info(value_type), frozenset())
    except (TypeError, ValueError):
        return True


def _open(info: Any, around: frozenset[Any]) -> bool:
    if isinstance(info, inspect.AnyType | inspect.RawType | inspect.CustomType):
        return True
    kind = getattr(info, "cls", None)
    if kind is not None:
        if kind in around:
            return True
        around |= {kind}
    return any(_open(inner, around) for inner in inner_types(info))


def inner_types(info: Any) -> list[Any]:
    """Return the types that a type is made of."""
    named = [getattr(info, name, None) for name in ("type", "item_type", "key_type", "value_type")]
    listed = [each for name in ("types", "item_types") for each in getattr(info, name, ())]
    fields = [field.type for field in getattr(info, "fields", ())]
    return [each for each in [*named, *listed, *fields] if isinstance(each, inspect.Type)]
