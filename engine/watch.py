"""The watch over the event loop: who holds it up, where, and for how long.

One callback a few times a second says that the loop is alive. A thread (the only one of the engine)
looks whether it has: after a stall of some length it logs, once, the stack of the thread that runs
the loop, which is the line of code that does not return. When the loop goes on, its length follows.

While the loop stands still no heartbeat is sent. If that lasts for the session timeout, the group
gives the worker's tasks to others; what it then tries to commit is refused, and it joins anew.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from engine.clock import Clock
    from engine.metrics import Metrics

log = logging.getLogger(__name__)

BEATS = 4
"""So many callbacks in the length of a stall."""
FRAMES = 12


class Watch:
    """A context manager; the loop is watched inside of it.

    Args:
        stall_ms: from when on a stall is one; 0: watch nothing.
    """

    def __init__(self, stall_ms: int, clock: Clock, metrics: Metrics) -> None:
        self._stall_ms = stall_ms
        self._beat_ms = stall_ms / BEATS
        self._clock = clock
        self._metrics = metrics
        self._last_ms = 0.0
        self._stalled = False  # and the stack is in the log
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._next: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        if self._stall_ms:
            self._last_ms = self._clock.elapsed_ms()
            self._beat()
            self._thread = threading.Thread(
                target=self._look, args=(threading.get_ident(),), name="watch", daemon=True
            )
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._next is not None:
            self._next.cancel()
        if self._thread is not None:
            self._thread.join()

    def _beat(self) -> None:
        """On the loop: note that it runs, and how late."""
        now = self._clock.elapsed_ms()
        lag_ms = max(0.0, now - self._last_ms - self._beat_ms)
        self._metrics.loop_lag(lag_ms / 1000)
        if lag_ms >= self._stall_ms:
            self._metrics.stalled()
            log.warning("the event loop stood still for %.0f ms", lag_ms)
        self._last_ms = now
        self._stalled = False
        loop = asyncio.get_running_loop()
        self._next = loop.call_later(self._beat_ms / 1000, self._beat)

    def _look(self, watched: int) -> None:
        """In the thread: log the stack of a loop that has not beaten for too long."""
        while not self._ended.wait(self._beat_ms / 1000):
            late_ms = self._clock.elapsed_ms() - self._last_ms - self._beat_ms
            frame = sys._current_frames().get(watched)  # noqa: SLF001  the documented way
            if late_ms >= self._stall_ms and not self._stalled and frame is not None:
                self._stalled = True
                stack = "".join(traceback.format_stack(frame, FRAMES))
                log.warning(
                    "the event loop stands still for %.0f ms now, and no heartbeat is sent; what "
                    "blocks belongs into `await asyncio.to_thread(...)`:\n%s", late_ms, stack,
                )  # fmt: skip
