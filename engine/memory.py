"""The memory limit of a worker process: how it is divided, and what happens near it.

Of the limit, what the process takes before it has a record (``base``: Python and the libraries,
about 100 MB) is taken off. The rest is divided:

=================  ====  =======================================================================
part               of 20 what it is for
=================  ====  =======================================================================
``memory_bytes``   8     decoded: a quarter inboxes, two eighths outboxes with the changes since
                         the last cut (one on its way), half the tables' overlays
``fetch``          2     compressed, as it comes from the broker: ``fetch_bytes`` for each input
                         partition of the worker
``cache``          2     RocksDB's block cache
``write_buffer``   2     RocksDB's write buffers
spare              6     a batch while it is decoded or encoded, and what the allocator keeps
=================  ====  =======================================================================

The inboxes' and overlays' parts are shared by inputs and tables evenly, anew with each poll and
commit, so tasks that come and go need no step of their own.

Sizes in memory are estimates, so the process looks at what it really has (:class:`Pressure`): near
the limit it polls nothing, and its decoded part is halved, so commits come earlier and overlays are
evicted with them; the work goes on, if slower. Processes of ``map_cpu`` are not in it.
"""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from engine.errors import ConfigError

if TYPE_CHECKING:
    from engine.config import Config

_UNITS = {
    "": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
}  # fmt: skip
_LEAST = 48 << 20
"""What must be left for records."""
_AMPLE = 2 << 30
_OF_GROUP = 0.8
"""Of a control group's limit: its page cache and our children are in it, too."""
_PARTS = 20


def size(value: Any, name: str) -> int:
    """Return the bytes that ``"2GiB"``, ``"512MiB"`` or ``"1.5GB"`` are; a number is bytes.

    Raises:
        ConfigError: it is none of these.
    """
    match = re.fullmatch(r"(-?\d+(?:\.\d+)?)\s*([a-z]*)", str(value).strip().lower())
    if match is None or match[2] not in _UNITS:
        raise ConfigError(f"{name} {value!r}: write it as 2GiB, 512MiB or 1500MB")
    return int(float(match[1]) * _UNITS[match[2]])


class Budget(NamedTuple):
    """What a worker's parts may hold, in bytes."""

    decoded: int
    fetch: int
    cache: int
    write_buffer: int


def divide(limit: int, base: int) -> Budget:
    """Divide a limit as the table above says.

    Raises:
        ConfigError: too little is left for records.
    """
    left = limit - base
    if left < _LEAST:
        raise ConfigError(
            f"memory_limit {limit >> 20} MiB: the process takes {base >> 20} MiB before it has a "
            f"record: give it {(base + _LEAST >> 20) + 1} MiB at least"
        )
    part = left // _PARTS
    return Budget(decoded=8 * part, fetch=2 * part, cache=2 * part, write_buffer=2 * part)


def fitted(config: Config) -> Config:
    """Return the settings with those in bytes as the limit has them; as they are without one."""
    limit = config.memory_limit or group_limit()
    if not limit:
        return config
    budget = divide(limit, used())
    return msgspec.structs.replace(
        config,
        memory_limit=limit,
        memory_bytes=budget.decoded,
        fetch_memory=budget.fetch,
        cache_bytes=budget.cache,
        write_buffer_bytes=budget.write_buffer,
    )


def group_limit(workers: int = 1, root: Path = Path("/")) -> int:
    """Return a worker's share of what the control group allows; 0: plenty, or no bound is known."""
    bounds = [bound for path in _group_files(root) if (bound := _read_bound(path))]
    limit = int(min(bounds) * _OF_GROUP) // workers if bounds else 0
    return limit if limit < _AMPLE else 0


def _group_files(root: Path) -> list[Path]:
    """Return the files that may bound us: our group's and those of the groups around it.

    Of both versions: ``0::/shop`` is of the second, ``4:memory:/shop`` of the first.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, kind, group = line.split(":", 2)
        if kind in {"", "memory"}:
            top = root / "sys/fs/cgroup" / kind
            name = "memory.limit_in_bytes" if kind else "memory.max"
            place = top / group.strip("/")
            found += [part / name for part in (place, *place.parents) if part.is_relative_to(top)]
    return found


def _read_bound(path: Path) -> int:
    try:
        text = path.read_text().strip()
    except OSError:
        return 0
    return int(text) if text.isdecimal() else 0


def used() -> int:
    """Return the bytes of this process that are in memory; 0 where the system does not tell."""
    try:
        pages = Path("/proc/self/statm").read_bytes().split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


# -- near the limit ----------------------------------------------------------------------------

HIGH = 0.85
FULL = 0.93
LEAST = 1 / 16
LOOK_MS = 50.0
TRIM_MS = 1_000.0


def eased(factor: float, share: float) -> float:
    """Return the next factor for the decoded part, with ``share`` of the limit in use.

    Halved above HIGH, down to LEAST; below it, it comes back by a tenth at a time.
    """
    if share > HIGH:
        return max(LEAST, factor / 2)
    return min(1.0, factor * 1.1)


class Pressure:
    """How near a process is to its limit.

    Attributes:
        factor: of its decoded part that is given out.
        full: so near that nothing must be polled.
    """

    def __init__(self, limit: int) -> None:
        self.factor = 1.0
        self.full = False
        self.used = 0
        self._limit = limit
        self._looked_ms = self._trimmed_ms = -TRIM_MS
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's

    def look(self, now_ms: float) -> None:
        """Look at what is in use, if it is time."""
        if not self._limit or now_ms - self._looked_ms < LOOK_MS:
            return
        self._looked_ms = now_ms
        self.used = used()
        share = self.used / self._limit
        self.factor = eased(self.factor, share)
        self.full = share > FULL
        if share > HIGH and self._trim is not None and now_ms - self._trimmed_ms >= TRIM_MS:
            self._trimmed_ms = now_ms
            self._trim(0)  # what is free in the allocator's hands goes back to the system
