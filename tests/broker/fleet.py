"""Worker processes that tests start, kill and count on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Fleet:
    """Real ``headrace worker`` processes, each with its own state directory."""

    def __init__(self, home: Path, bootstrap: str, settings: Mapping[str, str]) -> None:
        self.home = home
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self._environ = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "HEADRACE_BROKER": bootstrap,
            **{f"HEADRACE_{name.upper()}": value for name, value in settings.items()},
        }

    def __enter__(self) -> "Fleet":
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self.workers):
            self.kill(name)

    def start(self, name: str, module: str = "agents", **settings: str) -> None:
        """Start a worker; the same name finds the same state directory."""
        own = {f"HEADRACE_{key.upper()}": value for key, value in settings.items()}
        with (self.home / f"{name}.log").open("ab") as log:
            self.workers[name] = subprocess.Popen(
                [sys.executable, "-m", "engine.cli", "worker", module],
                env={**self._environ, "HEADRACE_STATE_DIR": str(self.home / name), **own},
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )

    def kill(self, name: str) -> None:
        """SIGKILL."""
        worker = self.workers.pop(name)
        worker.send_signal(signal.SIGKILL)
        worker.wait()

    def stop(self, name: str, *, timeout_s: float = 20.0) -> int:
        """SIGTERM, once the worker listens for it; return the exit code."""
        worker = self.workers.pop(name)
        wait_until(lambda: _listens(worker), timeout_s=timeout_s, what=f"{name} does not start")
        worker.send_signal(signal.SIGTERM)
        return worker.wait(timeout_s)

    def log(self, name: str) -> str:
        """Return what a worker has printed."""
        return (self.home / f"{name}.log").read_text(errors="replace")

    def check(self) -> None:
        """Fail if a worker that should run does not."""
        for name, worker in self.workers.items():
            assert worker.poll() is None, f"{name} ended:\n{self.log(name)[-3000:]}"


def _listens(worker: "subprocess.Popen[bytes]") -> bool:
    """Say whether a process catches SIGTERM or has ended: a Python that only starts dies of it."""
    if worker.poll() is not None:
        return True
    status = Path(f"/proc/{worker.pid}/status").read_text()
    caught = int(status.partition("SigCgt:")[2].split(None, 1)[0], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def wait_until(condition, *, timeout_s: float, what: str, every_s: float = 0.2) -> float:
    """Wait for a condition; return how long it took (s)."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < timeout_s, f"after {timeout_s} s: {what}"
        time.sleep(every_s)
    return time.monotonic() - began
