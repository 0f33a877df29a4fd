"""A task's state on disk: one RocksDB with a column family a table. The only file on rocksdict.

The write-ahead log stays on: for batches it costs nothing that can be measured (0.28 us an entry
with it, 0.6 us without, on the same run), and with it a killed process finds its state as of the
last commit, not as of the last memtable flush.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import rocksdict

from tables import identity
from tables.errors import StoreCorrupted, StoreFailed, StoreForeign, StoreLocked

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

Change = tuple[bytes, bytes | None]
"""A key and its new value; None deletes it."""


class Below(NamedTuple):
    """In place of a value: all keys from this one up to ``end``, without it, are deleted.

    One entry of RocksDB for a whole window, where a deletion a key costs as much as writing it.
    """

    end: bytes


Entry = tuple[bytes, bytes | Below | None]
"""A change of a store, which can also be a :class:`Below`."""

META = "headrace.meta"
TIMERS = "headrace.timers"


_HELD = re.compile(r"lock hold by|While lock file")
"""What RocksDB says of a held lock (many other messages have a "block" or a path in them)."""

_DISK = re.compile(
    r"No space left on device|Disk quota exceeded|File too large|Read-only file system"
    r"|Input/output error|Permission denied|Too many open files|Stale file handle"
)
"""What it says when the disk is to blame, and not what is on it."""


class Store(Protocol):
    """What a task needs of its store. Real: :class:`RocksStore`; in tests also a dict."""

    def get(self, family: str, key: bytes) -> bytes | None:
        """Return the value of ``key``, or None."""
        ...

    def get_many(self, family: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values of ``keys``, in their order, None for an absent one."""
        ...

    def scan(
        self, family: str, start: bytes = b"", end: bytes | None = None, limit: int | None = None
    ) -> list[tuple[bytes, bytes]]:
        """Return the entries with start <= key < end in byte order, the first ``limit`` at most."""
        ...

    def write(self, changes: Mapping[str, Iterable[Entry]]) -> None:
        """Apply all changes of all families in their order, or none of them."""
        ...

    def clear(self) -> None:
        """Forget everything."""
        ...

    def close(self) -> None:
        """Release the files; the store must not be used afterwards."""
        ...


class Memory:
    """The memory that all stores of a worker share: one block cache, one write-buffer budget."""

    def __init__(self, *, cache_bytes: int = 128 << 20, write_buffer_bytes: int = 64 << 20) -> None:
        self.cache = rocksdict.Cache(cache_bytes)
        self.write_buffers = rocksdict.WriteBufferManager(write_buffer_bytes, False)  # noqa: FBT003

    def options(self) -> rocksdict.Options:
        """Return options for one column family (raw mode: rocksdict unpickles otherwise)."""
        options = rocksdict.Options(raw_mode=True)
        options.create_if_missing(True)  # noqa: FBT003
        options.create_missing_column_families(True)  # noqa: FBT003
        options.set_write_buffer_manager(self.write_buffers)
        options.set_write_buffer_size(16 << 20)
        options.set_keep_log_file_num(1)
        options.set_max_open_files(128)
        options.set_max_file_opening_threads(1)  # with its 16, to open a store took thrice as long
        options.set_paranoid_checks(True)
        table = rocksdict.BlockBasedOptions()
        table.set_block_cache(self.cache)
        table.set_bloom_filter(10, False)  # noqa: FBT003
        table.set_cache_index_and_filter_blocks(True)
        options.set_block_based_table_factory(table)
        return options


class RocksStore:
    """A directory of RocksDB, mode 0700, with one column family a table.

    Args:
        owner: what the store's own record must say (:func:`tables.identity.identity`); b"": any.

    Raises:
        StoreLocked: another process (or task) has the directory open.
        StoreForeign: it holds what is not ours.
        StoreFailed: the disk is full, or worse.
        StoreCorrupted: RocksDB refuses the files, or they are another task's or of another format;
            wiping and restoring mends it.
    """

    def __init__(
        self, path: Path, families: Iterable[str], memory: Memory, owner: bytes = b""
    ) -> None:
        self.path = path
        self._memory = memory
        self._owner = owner
        self._names = sorted({*families, META, TIMERS})
        self._open()

    def _open(self) -> None:
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._claim()
        except OSError as error:
            raise StoreFailed(self.path, str(error)) from error
        self._open_rocksdb()
        try:
            self._check_owner()
        except BaseException:
            self.close()
            raise

    def _claim(self) -> None:
        """Mark an empty directory as ours; refuse one with things in it that are not."""
        strange = identity.strangers(self.path)
        if strange:
            raise StoreForeign(self.path, f"it has {', '.join(strange)} in it")
        if identity.is_marked(self.path):
            return
        if any(self.path.iterdir()) and not self._was_ours():
            raise StoreForeign(self.path, "it is a RocksDB of some other software")
        identity.mark(self.path)

    def _was_ours(self) -> bool:
        """Say whether a directory without a mark is a store from before there were marks."""
        try:
            return META in rocksdict.Rdict.list_cf(str(self.path))
        except Exception:  # noqa: BLE001  nobody can tell: then it is not ours to delete
            return False

    def _check_owner(self) -> None:
        """Compare the store's record with whose it should be; write it into an empty one."""
        found = self.get(META, identity.KEY)
        if found == self._owner or not self._owner:
            return
        if found is None and not any(self.scan(name, limit=1) for name in self._names):
            self.write({META: [(identity.KEY, self._owner)]})
            return
        says = "has no record of its owner" if found is None else f"is of {found.decode()}"
        raise StoreCorrupted(self.path, f"it {says}, and not of {self._owner.decode()}")

    def _open_rocksdb(self) -> None:
        try:
            known = rocksdict.Rdict.list_cf(str(self.path)) if self._exists() else []
            names = {*self._names, *known} - {"default"}
            self._db = rocksdict.Rdict(
                str(self.path),
                self._memory.options(),
                column_families={name: self._memory.options() for name in sorted(names)},
            )
        except Exception as error:
            if _HELD.search(str(error)):
                raise StoreLocked(self.path) from error
            raise self._failure(error) from error
        self._families: dict[str, Any] = {
            name: self._db.get_column_family(name) for name in self._names
        }
        self._handles = {name: self._db.get_column_family_handle(name) for name in self._names}

    def _exists(self) -> bool:
        return os.path.lexists(self.path / "CURRENT")

    def get(self, family: str, key: bytes) -> bytes | None:
        """Return the value of ``key``, or None."""
        try:
            value: bytes | None = self._families[family].get(key)
        except Exception as error:
            raise self._failure(error) from error
        return value

    def get_many(self, family: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values of ``keys``, in their order, None for an absent one."""
        try:
            values: list[bytes | None] = self._families[family].get(list(keys))
        except Exception as error:
            raise self._failure(error) from error
        return values

    def scan(
        self, family: str, start: bytes = b"", end: bytes | None = None, limit: int | None = None
    ) -> list[tuple[bytes, bytes]]:
        """Return the entries with start <= key < end in byte order, the first ``limit`` at most.

        A list and not an iterator: an iterator left open would hold the files open.
        """
        try:
            return self._scan(family, start, end, limit)
        except Exception as error:
            raise self._failure(error) from error

    def _scan(
        self, family: str, start: bytes, end: bytes | None, limit: int | None
    ) -> list[tuple[bytes, bytes]]:
        db = self._families[family]
        options = rocksdict.ReadOptions()
        if end is not None:
            options.set_iterate_upper_bound(end)
        rows: list[tuple[bytes, bytes]] = list(
            islice(db.items(from_key=start, read_opt=options), limit)
        )
        if limit is None or len(rows) < limit:  # is this the end, or a block it cannot read?
            rest = db.iter(options)
            rest.seek(rows[-1][0] + b"\0" if rows else start)
            rest.status()
        return rows

    def _failure(self, error: Exception) -> Exception:
        """Return our error for what RocksDB says (it raises plain Exceptions).

        Without the frames that it came through: they hold RocksDB's handles, and somebody may keep
        the error. The directory would stay locked after the store was closed.
        """
        if type(error) is not Exception:
            return error
        error.__traceback__ = None
        if _DISK.search(str(error)):
            return StoreFailed(self.path, str(error))
        return StoreCorrupted(self.path, str(error))

    def write(self, changes: Mapping[str, Iterable[Entry]]) -> None:
        """Apply all changes of all families in one atomic WriteBatch."""
        try:
            self._write(changes)
        except Exception as error:
            raise self._failure(error) from error

    def _write(self, changes: Mapping[str, Iterable[Entry]]) -> None:
        batch = rocksdict.WriteBatch(raw_mode=True)
        put, delete = batch.put, batch.delete
        for family, rows in changes.items():
            handle = self._handles[family]
            for key, value in rows:
                if value is None:
                    delete(key, handle)
                elif type(value) is Below:
                    batch.delete_range(key, value.end, handle)
                else:
                    put(key, value, handle)
        self._db.write(batch)

    def clear(self) -> None:
        """Forget everything: close, delete the files, open anew."""
        self.close()
        wipe(self.path)
        self._open()

    def close(self) -> None:
        """Flush what the memtables hold and release the files.

        What cannot be flushed is in the write-ahead log, or on Kafka.
        """
        self._handles.clear()
        for part in (*self._families.values(), self._db):
            with contextlib.suppress(Exception):
                part.close()
        self._families.clear()
        del self._db


def wipe(path: Path) -> None:
    """Delete a store's directory; a missing one is no error."""
    shutil.rmtree(path, ignore_errors=True)
