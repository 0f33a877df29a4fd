"""The handle of a pattern on a topic: an operator that yields matches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.errors import ConfigError
from engine.operator import Operator
from engine.table import Seconds
from engine.windowed import milliseconds
from tables.codec import Codec
from tables.pattern import PatternPartition, Plan, restored

if TYPE_CHECKING:
    from engine.pattern import Pattern
    from engine.table import Emit
    from engine.topic import Topic
    from tables.store import Change, Store


class Matcher(Operator):
    """Events of a topic, matched against a pattern, key by key.

    Yields :class:`tables.match.Match`, and where it is asked for
    :class:`tables.match.Timeout` and :class:`tables.match.Late`. The semantics are those of Flink
    CEP 2.3 on a keyed stream; events without a key and those without a value are dropped.

    Args:
        delay: so many seconds events may be behind the newest one of their partition. An event
            waits so long before it is matched, that those before it may come.
        timeouts: yield partial matches whose time (``within``) is over.
        late: yield events that were too late; without it they are only counted.
        limit: so many partial matches a key at most; for a newer one the oldest is dropped, and
            counted.
    """

    def __init__(  # noqa: PLR0913
        self,
        name: str,
        topic: Topic,
        pattern: Pattern[Any],
        *,
        delay: Seconds = 0,
        timeouts: bool = False,
        late: bool = False,
        limit: int = 100_000,
        **options: Any,
    ) -> None:
        super().__init__(name, (topic,), **options)
        delay_ms = milliseconds(delay)
        if delay_ms < 0:
            raise ConfigError(f"pattern {name!r}: delay is 0 seconds or more, not {delay}")
        if limit < 1:
            raise ConfigError(f"pattern {name!r}: limit= is 1 partial match or more")
        self.pattern = pattern
        self.plan = Plan(
            name,
            pattern.compiled(),
            pattern.shape(),
            pattern.skip,
            delay_ms=delay_ms,
            timeouts=timeouts,
            late=late,
            limit=limit,
        )

    def open(self, store: Store, emit: Emit | None) -> PatternPartition:
        """Return this pattern's partition on a task's store."""
        contract = self.inputs[0].contract
        return PatternPartition(
            self.name,
            store,
            plan=self.plan,
            value=Codec(contract.encode, contract.decode),
            cache_entries=self.cache_entries,
        )

    def restored(self, changes: list[Change]) -> dict[str, list[Change]]:
        """Return what a store must hold for these changelog records: them, and their timers."""
        return restored(self.name, changes, self.plan)
