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
    from engine.policy import retry as retry
    from engine.security import Secret as Secret
    from engine.security import Security as Security
    from engine.stream import Event as Event
    from engine.stream import Stream as Stream
    from engine.table import Window as Window
    from engine.topic import Topic as Topic

__version__ = "0.1.0"
__all__ = [
    "App",
    "Contract",
    "Event",
    "HeadraceError",
    "Limits",
    "Rule",
    "Secret",
    "Security",
    "Stream",
    "Topic",
    "Window",
    "read_options",
    "retry",
]

_PLACES = {
    "App": "engine.app",
    "Contract": "engine.contracts.contract",
    "Event": "engine.stream",
    "HeadraceError": "engine.errors",
    "Limits": "engine.contracts.limits",
    "Rule": "engine.contracts.contract",
    "Secret": "engine.security",
    "Security": "engine.security",
    "Stream": "engine.stream",
    "Topic": "engine.topic",
    "Window": "engine.table",
    "read_options": "engine.config",
    "retry": "engine.policy",
}


def __getattr__(name: str) -> Any:
    """Import on first use: Faust takes 0.6 s, which ``headrace --help`` does not need."""
    place = _PLACES.get(name)
    if place is None:
        raise AttributeError(f"module 'engine' has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415

    return getattr(import_module(place), name)
