"""Which incarnation of a topic an offset belongs to, and how old a store may be.

A topic that was deleted and created anew has the same name and offsets that mean something else.
Kafka gives each creation an id (KIP-516). A store notes the ids of its changelogs, a committed
position that of its input; where they differ from what the cluster says now, the store is rebuilt
and the input is lost (:mod:`engine.gaps`). Where a broker says no ids, nothing is compared.

A store must also not be older than its changelogs' tombstones: a deletion that was compacted away
since would be missed, and the key would come back. So a store notes when it was last current.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from tables.store import META

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.task import Task
    from tables.store import Change, Store

log = logging.getLogger(__name__)

TOMBSTONES_MS = 86_400_000
"""How long compaction leaves a tombstone in place: Kafka's default of ``delete.retention.ms``."""

MARGIN_MS = 600_000
"""A restore takes time too."""

_CURRENT = b"current"


def current(now_ms: int) -> Change:
    """Return the note that a store has all that was on its changelogs at a time."""
    return _CURRENT, b"%d" % now_ms


def is_outdated(store: Store, now_ms: int) -> bool:
    """Say whether tombstones may have gone since a store was current."""
    noted = store.get(META, _CURRENT)
    return noted is not None and now_ms - int(noted) > TOMBSTONES_MS - MARGIN_MS


def check(task: Task, ids: Mapping[str, str], now_ms: int) -> None:
    """Empty a task's store if it belongs to topics that are gone; note what it belongs to now."""
    store = task.store
    names = [(table.changelog or table.source).name for table in task.part.tables]  # type: ignore[union-attr]
    notes = {name: f"topic:{name}".encode() for name in names if name in ids}
    for name, note in notes.items():
        known = store.get(META, note)
        if known is not None and known.decode() != ids[name]:
            log.warning(
                "task %s: topic %s was created anew (its id is %s and was %s); the store is "
                "rebuilt from it", task.id, name, ids[name], known.decode(),
            )  # fmt: skip
            store.clear()
            break
    rows: list[Change] = [
        (note, ids[name].encode()) for name, note in notes.items() if store.get(META, note) is None
    ]
    if store.get(META, _CURRENT) is None:
        rows.append(current(now_ms))  # a restore from the beginning must not take longer either
    if rows:
        store.write({META: rows})
