"""A change of key, or of topic, in the middle of an agent."""

from __future__ import annotations

import inspect
import operator
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.topic import Topic


class Move(NamedTuple):
    """A change of topic in the middle of an agent: by ``group_by`` or by ``through``."""

    key: Callable[[Any], Any] | None
    name: str
    topic: Topic | None


class NotMoved(Exception):
    """An agent asked for a move that the topology had not found when it probed the agent."""

    def __init__(self, move: Move) -> None:
        self.move = move
        super().__init__(
            f"group_by/through {move.name!r} must be called where the agent's loop begins "
            "(async for x in stream.group_by(...)), so that the topology knows it before the start"
        )


def key_function(key: Any) -> Callable[[Any], Any]:
    """Return a function of the value for a field, a field's name, or a function."""
    if isinstance(key, str):
        return operator.attrgetter(key)
    if hasattr(key, "__get__") and not inspect.isroutine(key):  # a Struct's field
        return operator.attrgetter(key_name(key))
    if callable(key):
        return key  # type: ignore[no-any-return]
    return operator.attrgetter(key_name(key))


def key_name(key: Any) -> str:
    """Return the name of a field; a function without a name of its own needs one given."""
    name = key if isinstance(key, str) else getattr(key, "field", getattr(key, "__name__", ""))
    if not name or name == "<lambda>":
        raise ConfigError("group_by(function) needs name=...: it names the topic in between")
    return str(name)
