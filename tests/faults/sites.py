"""The cluster that the last trial ran on, for as long as the next one needs the same kind."""

import contextlib
from collections.abc import Callable
from pathlib import Path

from tests.faults.catalogue import Place
from tests.faults.cluster import Site


class Sites:
    """Clusters, started when they are needed; at most one at a time.

    Args:
        new_home: makes an empty directory for a cluster.
    """

    def __init__(self, new_home: Callable[[], Path]) -> None:
        self._new_home = new_home
        self._open = contextlib.ExitStack()
        self._site: tuple[Place, Site] | None = None

    def __enter__(self) -> "Sites":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, place: Place) -> Site:
        """Return such a cluster."""
        if self._site is None or self._site[0] is not place:
            self.close()
            self._site = place, self._open.enter_context(place(self._new_home()))
        return self._site[1]

    def close(self) -> None:
        """Stop the cluster: it is not needed any more, or a failure has spoiled it."""
        self._site = None
        self._open.close()
