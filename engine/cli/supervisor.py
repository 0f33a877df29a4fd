"""Several workers on one machine: start them, start them again when they crash, stop them.

A worker that has ended is started again after a pause that doubles each time, unless it had been up
for a while. One that ends so ``TRIES`` times in a row, or that says that its settings are wrong,
ends the others too: there is something that only a person can mend.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.cli.command import EXIT_CONFIG, Failure
from engine.tether import Tether

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from engine.clock import Clock

TRIES = 5
SETTLED_S = 30.0
"""A worker that was up for so long had started well; its end begins a new count."""
FIRST_PAUSE_S = 0.5
MOST_PAUSE_S = 10.0
STOP_S = 12.0
"""A worker needs at most 10 s to stop."""


class _Replica:
    """One worker's place."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.child: Tether | None = None
        self.since_ms = 0.0
        self.again_ms = 0.0
        self.failures = 0


class Supervisor:
    """Keeps ``count`` workers running. Call :meth:`tend` a few times a second.

    Args:
        argv: the worker's command line, the program by its absolute path.
        log_path: where a worker's output goes, by its number; None: where ours goes.
        say: is told what happens.
    """

    def __init__(
        self,
        argv: Sequence[str],
        count: int,
        *,
        clock: Clock,
        directory: Path,
        log_path: Callable[[int], Path] | None = None,
        say: Callable[[str], None],
    ) -> None:
        self._argv = argv
        self._clock = clock
        self._directory = directory
        self._log_path = log_path
        self._say = say
        self._replicas = [_Replica(number) for number in range(count)]

    def tend(self) -> None:
        """Start what is to be started.

        Raises:
            Failure: a worker cannot be kept running.
        """
        now = self._clock.elapsed_ms()
        for replica in self._replicas:
            child = replica.child
            if child is None:
                if now >= replica.again_ms:
                    self._start(replica, now)
            elif child.exit_code is not None:
                self._ended(replica, child.exit_code, now)

    def _start(self, replica: _Replica, now: float) -> None:
        path = self._log_path(replica.number) if self._log_path else None
        replica.child = Tether(self._argv, directory=self._directory, log_path=path)
        replica.since_ms = now

    def _ended(self, replica: _Replica, code: int, now: float) -> None:
        replica.child = None
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit status {code}"
        if now - replica.since_ms >= SETTLED_S * 1000:
            replica.failures = 0
        replica.failures += 1
        if code == EXIT_CONFIG:
            raise Failure(f"worker {replica.number} cannot run{self._why(replica)}", EXIT_CONFIG)
        if replica.failures >= TRIES:
            raise Failure(
                f"worker {replica.number} {how} {TRIES} times in a row{self._why(replica)}"
            )
        pause_s = min(MOST_PAUSE_S, FIRST_PAUSE_S * 2 ** (replica.failures - 1))
        replica.again_ms = now + pause_s * 1000
        self._say(f"worker {replica.number} {how}; it is started again in {pause_s:g} s")

    def _why(self, replica: _Replica) -> str:
        """Return the last line of a worker's output, where it is in a file."""
        if self._log_path is None:
            return " (its last words are above)"
        text = self._log_path(replica.number).read_text(errors="replace").strip()
        return f": {text.splitlines()[-1].removeprefix('Error: ')}" if text else ""

    def stop(self) -> None:
        """Stop all, in good order; kill those that do not stop."""
        children = [r.child for r in self._replicas if r.child is not None]
        for child in children:
            child.ask_to_stop()
        for child in children:
            child.stop(STOP_S)

    def kill(self) -> None:
        """Kill all."""
        for replica in self._replicas:
            if replica.child is not None:
                replica.child.kill()
