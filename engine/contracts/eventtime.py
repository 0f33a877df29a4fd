"""When an event happened: a field of it, in some unit, or what a function says."""

from __future__ import annotations

import operator
import types
import typing
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from engine.errors import ConfigError

Unit = Literal["s", "ms", "us", "ns"]

_PER_MS = {"ms": 1, "us": 1_000, "ns": 1_000_000}
_NO_TIMES = {str, bytes, bool, list, dict, type(None)}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS_A_DAY = 86_400_000
_NEVER_S = 1 << 50


def extractor(
    event_time: str | Callable[[Any], Any] | None, unit: Unit, value_type: Any
) -> Callable[[Any], int] | None:
    """Return what takes an event and returns its time in ms; None: nothing says it.

    It raises anything for an event that has none: a null, a text, what a function stumbles on.

    Args:
        event_time: the field that holds the time, or a function of the event.
        unit: of the number that is found there. A field that is a ``datetime`` needs none; one
            without a time zone is taken for UTC.

    Raises:
        ConfigError: there is no such unit or no such field, or its type is never a time.
    """
    if event_time is None:
        return None
    if unit not in typing.get_args(Unit):
        raise ConfigError(f"time_unit={unit!r}: an event time is in 's', 'ms', 'us' or 'ns'")
    if not isinstance(event_time, str):
        return _scaled(event_time, unit)
    take = field_getter(value_type, event_time, "event_time")
    kinds = _kinds(value_type, event_time)
    if kinds and kinds <= _NO_TIMES:
        raise ConfigError(
            f"event_time={event_time!r}: that field is never a time; give one that is a number or "
            "a datetime, or a function of the event that returns a number"
        )
    if kinds and kinds <= {datetime, type(None)}:
        return lambda event: _ms(take(event))
    return take if unit == "ms" and kinds == {int} else _scaled(take, unit)


def field_getter(value_type: Any, field: str, what: str) -> Callable[[Any], Any]:
    """Return what takes a field out of a value: of an object an attribute, of any JSON an item.

    Args:
        what: the name of the setting that gives the field, for messages.

    Raises:
        ConfigError: the type has no such field.
    """
    plain = typing.get_origin(value_type) or value_type
    if plain is None or plain is Any or plain is dict:
        return operator.itemgetter(field)
    if isinstance(value_type, type) and issubclass(value_type, msgspec.Struct):
        first = field.partition(".")[0]
        if not hasattr(value_type, first):  # properties are as good
            names = ", ".join(value_type.__struct_fields__)
            raise ConfigError(
                f"{what}={field!r}: {value_type.__name__} has no such field; it has {names}"
            )
    return operator.attrgetter(field)


def _scaled(take: Callable[[Any], Any], unit: Unit) -> Callable[[Any], int]:
    if unit == "s":  # what is far off stays so, and a number: the contract's own rule refuses it
        return lambda event: round(1000 * max(-1, min(take(event), _NEVER_S)))
    per_ms = _PER_MS[unit]
    return lambda event: int(take(event) // per_ms)


def _kinds(value_type: Any, field: str) -> set[Any]:
    """Return what types a field may be of; nothing: who knows."""
    try:
        hint = typing.get_type_hints(value_type).get(field)
    except (TypeError, NameError, AttributeError):  # no class, or a name that is not to be found
        return set()
    if typing.get_origin(hint) in {typing.Union, types.UnionType}:
        return set(typing.get_args(hint))
    return set() if hint is None else {hint}


def _ms(time: datetime) -> int:
    since = (time if time.tzinfo is not None else time.replace(tzinfo=UTC)) - _EPOCH
    return since.days * _MS_A_DAY + since.seconds * 1000 + since.microseconds // 1000
