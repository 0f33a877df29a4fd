"""When an event happened: a field of it, in some unit, or what a function says."""

from __future__ import annotations

import operator
import typing
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal

from engine.errors import ConfigError

Unit = Literal["s", "ms", "us", "ns"]

_PER_MS = {"us": 1_000, "ns": 1_000_000}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS_A_DAY = 86_400_000
_NEVER_S = 1 << 50


def extractor(
    event_time: str | Callable[[Any], Any] | None, unit: Unit, value_type: Any
) -> Callable[[Any], int] | None:
    """Return what takes an event and returns its time in ms; None: nothing says it.

    Args:
        event_time: the field that holds the time, or a function of the event.
        unit: of the number that is found there. A field that is a ``datetime`` needs none; one
            without a time zone is taken for UTC.

    Raises:
        ConfigError: there is no such unit.
    """
    if event_time is None:
        return None
    if unit not in typing.get_args(Unit):
        raise ConfigError(f"time_unit={unit!r}: an event time is in 's', 'ms', 'us' or 'ns'")
    if not isinstance(event_time, str):
        return event_time if unit == "ms" else _scaled(event_time, unit)
    take: Callable[[Any], Any] = operator.attrgetter(event_time)
    if _is_datetime(value_type, event_time):
        return lambda event: _ms(take(event))
    return take if unit == "ms" else _scaled(take, unit)


def _scaled(take: Callable[[Any], Any], unit: Unit) -> Callable[[Any], int]:
    if unit == "s":  # what is far off stays so, and a number: the contract's own rule refuses it
        return lambda event: round(1000 * max(-1, min(take(event), _NEVER_S)))
    per_ms = _PER_MS[unit]
    return lambda event: int(take(event) // per_ms)


def _is_datetime(value_type: Any, field: str) -> bool:
    try:
        hints = typing.get_type_hints(value_type)
    except (TypeError, NameError, AttributeError):  # no class, or a name that is not to be found
        return False
    return hints.get(field) is datetime


def _ms(time: datetime) -> int:
    since = (time if time.tzinfo is not None else time.replace(tzinfo=UTC)) - _EPOCH
    return since.days * _MS_A_DAY + since.seconds * 1000 + since.microseconds // 1000
