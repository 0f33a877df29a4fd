"""Joins of two tables that are topics: by their keys, or by a foreign key of the left one.

What comes out is a table as well: for each change the row as it is now, a pair of the left and the
right value, or None where there is no such row any more. Yielded to a sink, None is a tombstone
with the row's key, so a compacted topic holds the join.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.errors import ConfigError
from engine.operator import Operator
from engine.table import Seconds, TableHandle
from engine.topic import Topic
from engine.windowed import milliseconds
from tables.codec import Codec
from tables.tablejoin import STANDS_ALONE, How, TableJoinPartition, restored

if TYPE_CHECKING:
    from engine.table import Emit
    from tables.store import Change, Store

Side = Topic | TableHandle


class TableJoin(Operator):
    """A join of two tables by their keys: see :mod:`tables.tablejoin` for what it says when.

    It keeps both sides itself, so a topic can be used as it is.

    Args:
        left, right: the topics that the tables are (or tables declared with ``source=``); their
            contracts must allow tombstones (``compacting=True``, ``null_values=True``).
        how: ``inner``: rows that both sides have; ``left``: all rows of the left side; ``outer``:
            all rows of either. What a side lacks is None in the pair.
        history: an update counts only if it is the newest of its key by event time, and not older
            than this many seconds below its side's newest: a versioned table. None: all updates
            count, in the order in which they come.

    Raises:
        ConfigError: ``how`` is none of these, or a side is no table that is a topic.
    """

    def __init__(
        self,
        name: str,
        left: Side,
        right: Side,
        *,
        how: How = "inner",
        history: Seconds | None = None,
        **options: Any,
    ) -> None:
        if how not in STANDS_ALONE:
            raise ConfigError(f"table join {name!r}: how={how!r} is none of inner, left, outer")
        history_ms = None if history is None else milliseconds(history)
        if history_ms is not None and history_ms < 0:
            raise ConfigError(f"table join {name!r}: history={history}: seconds, 0 or more")
        super().__init__(name, [topic_of(left, name), topic_of(right, name)], **options)
        self.how = how
        self.history_ms = history_ms

    def open(self, store: Store, emit: Emit | None) -> TableJoinPartition:
        """Return this join's partition on a task's store."""
        left, right = self.inputs
        return TableJoinPartition(
            self.name,
            store,
            how=self.how,
            codecs=(values_of(left), values_of(right)),
            history_ms=self.history_ms,
            cache_entries=self.cache_entries,
        )

    def restored(self, changes: list[Change]) -> dict[str, list[Change]]:
        """Return what a store must hold for these changelog records, by family."""
        return restored(self.name, changes, self.history_ms)


def topic_of(side: Side, join: str) -> Topic:
    """Return the topic that a table is.

    Raises:
        ConfigError: it is a table of another kind, or its topic's contract forbids tombstones.
    """
    topic = side if isinstance(side, Topic) else getattr(side, "source", None)
    if not isinstance(topic, Topic):
        raise ConfigError(
            f"join {join!r}: {side!r} is no table that is a topic: give the topic, or a table "
            "declared with source="
        )
    if not topic.contract.null_values:
        raise ConfigError(
            f"join {join!r}: topic {topic.name} takes no tombstones, so nothing could ever leave "
            "the table: declare it with compacting=True, or null_values=True in its contract"
        )
    return topic


def values_of(topic: Topic) -> Codec[Any]:
    """Return the codec of a topic's values."""
    return Codec(topic.contract.encode, topic.contract.decode)
