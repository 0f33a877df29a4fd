"""A look at the cluster's topics now and then: was one deleted, or created anew, while we work?

A consumer would not notice: its position in the old topic is a position in the new one, too.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from engine.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.edges import Edges

log = logging.getLogger(__name__)

LOOK_MS = 5_000.0


class Census:
    """The topics of one worker, compared with what they were when its tasks began."""

    def __init__(self, edges: Edges) -> None:
        self._edges = edges
        self._looking: asyncio.Task[dict[str, str] | None] | None = None
        self._looked_ms = edges.clock.elapsed_ms()

    def anew(self, known: Mapping[str, str]) -> set[str]:
        """Return the topics whose ids are others now, as of the last look that has ended.

        It never waits: a look is a request, and the broker may be away. A topic that is gone is
        said to be gone.
        """
        looking = self._looking
        if looking is not None and looking.done():
            self._looking = None
            now = looking.result()
            if now is not None:
                self._tell_gone(sorted(known.keys() - now.keys()))
                return {name for name in known.keys() & now.keys() if now[name] != known[name]}
        elapsed = self._edges.clock.elapsed_ms()
        if looking is None and known and elapsed - self._looked_ms >= LOOK_MS:
            self._looked_ms = elapsed
            self._looking = asyncio.get_running_loop().create_task(self._look(list(known)))
        return set()

    async def _look(self, names: list[str]) -> dict[str, str] | None:
        try:
            return await self._edges.admin.topic_ids(names)
        except BrokerError:
            return None

    def _tell_gone(self, names: list[str]) -> None:
        if names:
            log.error(
                "topics are gone: %s; what reads or writes them waits. Create them anew, with "
                "their partitions (`headrace topics create NAME --partitions N`)", ", ".join(names),
            )  # fmt: skip

    async def close(self) -> None:
        """Ask no more."""
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()
            await asyncio.wait([looking])
