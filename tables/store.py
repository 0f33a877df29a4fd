"""A task's state on disk: one RocksDB with a column family a table. The only file on rocksdict.

The write-ahead log stays on: for batches it costs nothing that can be measured (0.28 us an entry
with it, 0.6 us without, on the same run), and with it a killed process finds its state as of the
last commit, not as of the last memtable flush.
"""

from __future__ import annotations

import os
import re
import shutil
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import rocksdict

from tables.errors import StoreCorrupted, StoreForeign, StoreLocked

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from pathlib import Path

Change = tuple[bytes, bytes | None]
"""A key and its new value; None deletes it."""

META = "headrace.meta"
TIMERS = "headrace.timers"


_HELD = re.compile(r"lock hold by|While lock file")
"""What RocksDB says of a held lock (many other messages have a "block" or a path in them)."""


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

    def write(self, changes: Mapping[str, Iterable[Change]]) -> None:
        """Apply all changes of all families, or none of them."""
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
        table = rocksdict.BlockBasedOptions()
        table.set_block_cache(self.cache)
        table.set_bloom_filter(10, False)  # noqa: FBT003
        table.set_cache_index_and_filter_blocks(True)
        options.set_block_based_table_factory(table)
        return options


class RocksStore:
    """A directory of RocksDB, mode 0700, with one column family a table.

    Raises:
        StoreLocked: another process (or task) has the directory open.
        StoreForeign: there is a database in it that is not ours.
        StoreCorrupted: RocksDB refuses the files; wiping and restoring mends it.
    """

    def __init__(self, path: Path, families: Iterable[str], memory: Memory) -> None:
        self.path = path
        self._memory = memory
        self._names = sorted({*families, META, TIMERS})
        self._open()

    def _open(self) -> None:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            known = rocksdict.Rdict.list_cf(str(self.path)) if self._exists() else []
            self._refuse_foreign(known)
            names = {*self._names, *known} - {"default"}
            self._db = rocksdict.Rdict(
                str(self.path),
                self._memory.options(),
                column_families={name: self._memory.options() for name in sorted(names)},
            )
        except StoreForeign:
            raise
        except Exception as error:
            if _HELD.search(str(error)):
                raise StoreLocked(self.path) from error
            raise StoreCorrupted(self.path, str(error)) from error
        self._families: dict[str, Any] = {
            name: self._db.get_column_family(name) for name in self._names
        }
        self._handles = {name: self._db.get_column_family_handle(name) for name in self._names}

    def _refuse_foreign(self, known: Collection[str]) -> None:
        if known and META not in known and self._is_foreign(known):
            raise StoreForeign(self.path)

    def _is_foreign(self, known: Collection[str]) -> bool:
        """Say whether a database without our family of positions is another program's.

        Ours may be without it where it was killed as it was made: then nothing is in it yet.
        """
        if set(known) != {"default"} or not self._is_raw():
            return True
        options = rocksdict.Options(raw_mode=True)
        with closing(rocksdict.Rdict(str(self.path), options)) as database:
            return next(iter(database.keys()), None) is not None

    def _is_raw(self) -> bool:
        """Say whether rocksdict made it in raw mode, as ours are; to ask it would change that."""
        try:
            made = msgspec.json.decode((self.path / "rocksdict-config.json").read_bytes())
        except FileNotFoundError:
            return True  # RocksDB's own; or ours, killed before it was made
        return bool(made.get("raw_mode"))

    def _exists(self) -> bool:
        return os.path.lexists(self.path / "CURRENT")

    def get(self, family: str, key: bytes) -> bytes | None:
        """Return the value of ``key``, or None."""
        try:
            value: bytes | None = self._families[family].get(key)
        except Exception as error:
            raise self._unreadable(error) from error
        return value

    def get_many(self, family: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values of ``keys``, in their order, None for an absent one."""
        try:
            values: list[bytes | None] = self._families[family].get(list(keys))
        except Exception as error:
            raise self._unreadable(error) from error
        return values

    def scan(
        self, family: str, start: bytes = b"", end: bytes | None = None, limit: int | None = None
    ) -> list[tuple[bytes, bytes]]:
        """Return the entries with start <= key < end in byte order, the first ``limit`` at most.

        A list and not an iterator: an iterator left open would hold the files open.
        """
        db = self._families[family]
        options = rocksdict.ReadOptions()
        if end is not None:
            options.set_iterate_upper_bound(end)
        try:
            rows: list[tuple[bytes, bytes]] = list(
                islice(db.items(from_key=start, read_opt=options), limit)
            )
            if limit is None or len(rows) < limit:  # is this the end, or a block it cannot read?
                rest = db.iter(options)
                rest.seek(rows[-1][0] + b"\0" if rows else start)
                rest.status()
        except Exception as error:
            raise self._unreadable(error) from error
        return rows

    def _unreadable(self, error: Exception) -> Exception:
        """Return our error for what RocksDB says about a block that it cannot read."""
        return StoreCorrupted(self.path, str(error)) if type(error) is Exception else error

    def write(self, changes: Mapping[str, Iterable[Change]]) -> None:
        """Apply all changes of all families in one atomic WriteBatch."""
        batch = rocksdict.WriteBatch(raw_mode=True)
        put, delete = batch.put, batch.delete
        for family, rows in changes.items():
            handle = self._handles[family]
            for key, value in rows:
                if value is None:
                    delete(key, handle)
                else:
                    put(key, value, handle)
        self._db.write(batch)

    def clear(self) -> None:
        """Forget everything: close, delete the files, open anew."""
        self.close()
        wipe(self.path)
        self._open()

    def close(self) -> None:
        """Flush what the memtables hold and release the files."""
        self._handles.clear()
        for family in self._families.values():
            family.close()
        self._families.clear()
        self._db.close()
        del self._db


def wipe(path: Path) -> None:
    """Delete a store's directory; a missing one is no error."""
    shutil.rmtree(path, ignore_errors=True)
