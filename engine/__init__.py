"""Headrace: exactly-once stream processing on Kafka, in plain asyncio.

The front door: what an app imports.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.app import App as App
    from engine.config import read_options as read_options
    from engine.contracts.contract import Contract as Contract
    from engine.contracts.contract import Rule as Rule
    from engine.contracts.limits import Limits as Limits
    from engine.errors import HeadraceError as HeadraceError
    from engine.event import Event as Event
    from engine.pattern import Pattern as Pattern
    from engine.pattern import no_skip as no_skip
    from engine.pattern import skip_past_last_event as skip_past_last_event
    from engine.pattern import skip_to_first as skip_to_first
    from engine.pattern import skip_to_last as skip_to_last
    from engine.pattern import skip_to_next as skip_to_next
    from engine.policy import retry as retry
    from engine.security import Secret as Secret
    from engine.security import Security as Security
    from engine.stream import Stream as Stream
    from engine.table import Window as Window
    from engine.topic import Topic as Topic
    from tables.match import Late as Late
    from tables.match import Match as Match
    from tables.match import Timeout as Timeout

__version__ = "0.1.0"
__all__ = [
    "App",
    "Contract",
    "Event",
    "HeadraceError",
    "Late",
    "Limits",
    "Match",
    "Pattern",
    "Rule",
    "Secret",
    "Security",
    "Stream",
    "Timeout",
    "Topic",
    "Window",
    "no_skip",
    "read_options",
    "retry",
    "skip_past_last_event",
    "skip_to_first",
    "skip_to_last",
    "skip_to_next",
]

_PLACES = {
    "App": "engine.app",
    "Contract": "engine.contracts.contract",
    "Event": "engine.event",
    "HeadraceError": "engine.errors",
    "Late": "tables.match",
    "Limits": "engine.contracts.limits",
    "Match": "tables.match",
    "Pattern": "engine.pattern",
    "Rule": "engine.contracts.contract",
    "Secret": "engine.security",
    "Security": "engine.security",
    "Stream": "engine.stream",
    "Timeout": "tables.match",
    "Topic": "engine.topic",
    "Window": "engine.table",
    "no_skip": "engine.pattern",
    "read_options": "engine.config",
    "retry": "engine.policy",
    "skip_past_last_event": "engine.pattern",
    "skip_to_first": "engine.pattern",
    "skip_to_last": "engine.pattern",
    "skip_to_next": "engine.pattern",
}


def __getattr__(name: str) -> Any:
    """Import on first use: Faust takes 0.6 s, which ``headrace --help`` does not need."""
    place = _PLACES.get(name)
    if place is None:
        raise AttributeError(f"module 'engine' has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415

    return getattr(import_module(place), name)
