"""The workers of a campaign: started, killed, frozen, started again, measured.

A worker has a name, which is its instance in the group, and a state directory. One that is started
on a fresh directory gets a fresh name too: it is another worker.
"""

from __future__ import annotations

import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import engine
from engine import config as configuration
from engine.tether import Tether
from engine.torture.history import Gauge, Kill

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.clock import Clock

STOP_S = 15.0
"""A worker needs at most 10 s to stop."""
_PAGE = os.sysconf("SC_PAGE_SIZE")
_ROOT = Path(engine.__file__).parents[1]


class Worker:
    """One place in the fleet.

    Attributes:
        renewals: how often it has come back on an empty directory.
        hit: something is being done to it: it is not to be hit again.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.renewals = 0
        self.hit = False
        self.said = 0  # bytes of its log from before it was started
        self.child: Tether | None = None

    @property
    def name(self) -> str:
        """Its name in the group, and of its directory and its log."""
        return f"w{self.number}" + (f"-{self.renewals}" if self.renewals else "")


class Fleet:
    """Workers of module ``agents``.

    Args:
        home: where state directories and logs go.
        app: the app's id, for the clients' names.
        settings: of all workers, by the name of the setting.
    """

    def __init__(
        self, home: Path, app: str, settings: Mapping[str, str | int | bool], clock: Clock
    ) -> None:
        self.workers: list[Worker] = []
        self.homes: list[Path] = []
        self.gauges: dict[str, list[Gauge]] = {}
        self._home = home
        self._app = app
        self._settings = settings
        self._clock = clock

    def add(self, *, crash_at: str = "") -> Worker:
        """Start one more worker."""
        worker = Worker(len(self.workers) + 1)
        self.workers.append(worker)
        self.start(worker, crash_at=crash_at)
        return worker

    def start(self, worker: Worker, *, fresh: bool = False, crash_at: str = "") -> None:
        """Start a worker again; a fresh one has nothing on its disk."""
        worker.renewals += fresh
        state = self._home / worker.name
        if state not in self.homes:
            self.homes.append(state)
        self._note(f"start {worker.name}")
        log = self.log_path(worker)
        worker.said = log.stat().st_size if log.exists() else 0
        worker.child = Tether(
            [sys.executable, "-m", "engine.cli", "worker", "agents", "--replica"],
            directory=_ROOT,
            log_path=log,
            environ=configuration.environ(
                **self._settings, state_dir=str(state), instance=worker.name, crash_at=crash_at
            ),
        )

    def _note(self, what: str) -> None:
        """Write down what is done to a worker, to be laid beside the workers' logs."""
        seconds, ms = divmod(self._clock.now_ms(), 1000)
        at = datetime.fromtimestamp(seconds, UTC).strftime("%H:%M:%S")
        with (self._home / "faults.log").open("a") as log:
            log.write(f"{at}.{ms:03} UTC {what}\n")

    def log_path(self, worker: Worker) -> Path:
        """Return where a worker's output goes."""
        return self._home / f"{worker.name}.log"

    def at_work(self, worker: Worker) -> bool:
        """Say whether a worker has joined the group since it was started."""
        return worker.child is not None and b"is at work" in self.log_of(worker)

    def log_of(self, worker: Worker) -> bytes:
        """Return what a worker has printed since it was started."""
        return self.log_path(worker).read_bytes()[worker.said :]

    def kill(self, worker: Worker) -> Kill:
        """SIGKILL a worker."""
        assert worker.child is not None
        kill = Kill(self._clock.now_ms(), f"headrace-{self._app}-{worker.name}-consumer")
        worker.child.kill()
        worker.child = None
        self._note(f"kill {worker.name}")
        return kill

    def freeze(self, worker: Worker, *, thaw: bool = False) -> None:
        """SIGSTOP a worker, or let it go on."""
        assert worker.child is not None
        os.kill(worker.child.pid, signal.SIGCONT if thaw else signal.SIGSTOP)
        self._note(f"{'thaw' if thaw else 'freeze'} {worker.name}")

    def stop(self, worker: Worker) -> int | None:
        """Stop a worker in good order; return its exit status (None: there is none running)."""
        child, worker.child = worker.child, None
        if child is None:
            return None
        self._note(f"stop {worker.name}")
        child.ask_to_stop()
        return _end_of(child)

    def stop_all(self) -> list[str]:
        """Stop all workers together; return what is wrong with how they ended."""
        children = {w.name: w.child for w in self.workers if w.child is not None}
        for worker in self.workers:
            worker.child = None
        for child in children.values():
            child.ask_to_stop()
        codes = {name: _end_of(child) for name, child in children.items()}
        return [f"{name} ended with exit status {code}" for name, code in codes.items() if code]

    def kill_all(self) -> None:
        """Leave none behind."""
        for worker in self.workers:
            if worker.child is not None:
                worker.child.kill()
                worker.child = None

    def ended(self) -> list[Worker]:
        """Return the workers that have ended by themselves."""
        return [
            worker
            for worker in self.workers
            if worker.child is not None and worker.child.exit_code is not None
        ]

    def measure(self) -> None:
        """Note memory and open files of each running process (Linux)."""
        for worker in self.workers:
            child = worker.child
            if child is None:
                continue
            proc = Path(f"/proc/{child.pid}")
            try:
                resident = int((proc / "statm").read_text().split()[1]) * _PAGE
                files = sum(1 for _ in (proc / "fd").iterdir())
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue  # it has ended meanwhile, which is said elsewhere; nobody reads a zombie
            gauge = Gauge(self._clock.elapsed_ms() / 1000, resident, files)
            self.gauges.setdefault(f"{worker.name} (pid {child.pid})", []).append(gauge)


def _end_of(child: Tether) -> int | None:
    """Wait for a child that was asked to stop; asked again, it would be cut off in its last steps.

    One that does not stop is killed, and its exit status says so.
    """
    if not child.wait(STOP_S):
        child.kill()
    return child.exit_code
