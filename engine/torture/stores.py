"""What lies in the workers' stores, read with rocksdict and no code of the engine.

The workers must have ended: RocksDB is opened for reading only, which takes no lock.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import rocksdict

META = "headrace.meta"
_CHANGELOG = b"changelog:"


class Store(NamedTuple):
    """One task's store.

    Attributes:
        known: up to which offset the store has a changelog, by the changelog's name.
        tables: the entries, by table.
    """

    path: Path
    partition: int
    known: dict[str, int]
    tables: dict[str, dict[bytes, bytes]]


def dump(homes: Iterable[Path]) -> list[Store]:
    """Read every store under some directories."""
    return [_read(path) for home in homes for path in _stores(home)]


def _stores(home: Path) -> Iterator[Path]:
    return (path.parent for path in sorted(home.rglob("CURRENT")))


def _read(path: Path) -> Store:
    number = re.search(r"_(\d+)$", path.name)
    assert number is not None, f"{path} is no task's store"
    families = [name for name in rocksdict.Rdict.list_cf(str(path)) if name != "default"]
    db = rocksdict.Rdict(
        str(path),
        _options(),
        column_families={name: _options() for name in families},
        access_type=rocksdict.AccessType.read_only(),
    )
    try:
        rows: dict[str, dict[bytes, bytes]] = {}
        for name in families:
            family = db.get_column_family(name)
            pairs: Any = family.items()
            rows[name] = dict(pairs)
            family.close()
    finally:
        db.close()
    known = {
        key.removeprefix(_CHANGELOG).decode(): int(value)
        for key, value in rows.pop(META, {}).items()
        if key.startswith(_CHANGELOG)
    }
    return Store(path, int(number[1]), known, rows)


def _options() -> rocksdict.Options:
    return rocksdict.Options(raw_mode=True)  # else rocksdict unpickles what it finds
