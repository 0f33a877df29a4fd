"""What can go wrong with state, by what the caller must do.

::

    StateError
    ├── StoreLocked       stop: somebody else owns the directory
    ├── StoreForeign      stop: the directory holds a database that is not ours
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


class StoreForeign(StateError):
    """The directory holds a database that this engine did not make. It is left as it is."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} holds a database that is not Headrace's: move it away, or give another "
            "--state-dir"
        )


class StoreCorrupted(StateError):
    """RocksDB cannot read what is in the directory."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        super().__init__(
            f"the store in {path} cannot be read ({reason}); it is rebuilt from its changelog"
        )
