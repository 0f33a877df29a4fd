"""The only file that asks what time it is. Everything else is handed a :class:`Clock`."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


class Cancellable(Protocol):
    """A call that has not been made yet."""

    def cancel(self) -> None:
        """Do not make it."""
        ...


class Clock(Protocol):
    """Wall-clock and elapsed time, in ms."""

    def now_ms(self) -> int:
        """Return the wall clock's time: ms since the epoch."""
        ...

    def elapsed_ms(self) -> float:
        """Return ms since some fixed moment; never goes back."""
        ...

    def call_later(self, delay_ms: float, call: Callable[[], None]) -> Cancellable:
        """Call ``call`` in ``delay_ms``, on the event loop."""
        ...


class SystemClock:
    """The machine's clock and the running event loop's timers."""

    def now_ms(self) -> int:
        """Return the wall clock's time: ms since the epoch."""
        return time.time_ns() // 1_000_000

    def elapsed_ms(self) -> float:
        """Return ms since some fixed moment; never goes back."""
        return time.perf_counter() * 1000

    def call_later(self, delay_ms: float, call: Callable[[], None]) -> Cancellable:
        """Call ``call`` in ``delay_ms``, on the event loop."""
        return asyncio.get_running_loop().call_later(delay_ms / 1000, call)
