"""Whose directory is it? What a store may open, what it must rebuild, what it must not touch.

Beside RocksDB's files lies one of ours, written first: a directory with files and without it is
somebody else's and is left alone. Inside the store is a record of which task of which app it holds,
in which format: a copied or outdated one is ours to wipe, and is rebuilt.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

FORMAT = 1
"""Of the bytes in a store. A store of another format is rebuilt."""

MARK = "HEADRACE"
KEY = b"identity"

_ROCKSDB = re.compile(
    r"CURRENT|IDENTITY|LOCK|LOG|LOG\.old.*|MANIFEST-\d+|OPTIONS-\d+.*|\d+\.(sst|log|blob|dbtmp)"
    r"|rocksdict-config\.json|archive"
)


def identity(app: str, task: str) -> bytes:
    """Return what the store of a task has in its record."""
    return f"app={app} task={task} format={FORMAT}".encode()


def strangers(path: Path) -> list[str]:
    """Return the names in a directory that are neither ours nor RocksDB's, a few of them."""
    names = {entry.name for entry in path.iterdir()}
    return sorted(name for name in names if name != MARK and not _ROCKSDB.fullmatch(name))[:3]


def mark(path: Path) -> None:
    """Say in a directory that it is ours."""
    (path / MARK).write_text("The state of a Headrace task. It is rebuilt when it is deleted.\n")


def is_marked(path: Path) -> bool:
    """Say whether a directory is ours."""
    return (path / MARK).is_file()
