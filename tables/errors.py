"""What can go wrong with state, by what the caller must do.

::

    StateError
    ├── StoreLocked       stop: somebody else owns the directory
    ├── StoreForeign      stop: the directory holds what is not ours to delete
    ├── StoreFailed       wait: the disk is full or does not answer; nothing committed is lost
    └── StoreCorrupted    wipe the directory and restore from the changelog
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class StateError(Exception):
    """Something about a task's state."""


class StoreLocked(StateError):
    """The state directory is open in another process."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"the state directory {path} is in use by another process; give each worker its own "
            "with --state-dir, or stop the other one"
        )


class StoreCorrupted(StateError):
    """RocksDB cannot read what is in the directory."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        super().__init__(
            f"the store in {path} cannot be read ({reason}); it is rebuilt from its changelog"
        )


class StoreForeign(StateError):
    """The directory is not a store of ours."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        super().__init__(
            f"{path} is not a store of this engine ({reason}) and is left as it is; move it away, "
            "or give another --state-dir"
        )


class StoreFailed(StateError):
    """The disk does not take or give what it should. What is committed is on Kafka."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        super().__init__(
            f"the store in {path} cannot be used ({reason}): make room or mend the disk; what is "
            "committed is not lost, and its task goes on by itself then"
        )
