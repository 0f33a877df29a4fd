"""An engine's process: started, watched from outside through /proc, stopped."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from engine.tether import Tether

ROOT = Path(__file__).parents[1]
_TICKS = os.sysconf("SC_CLK_TCK")
_STOP_S = 15.0
_LOOK_S = 0.02


class Process:
    """A program that runs until the block is left.

    Args:
        argv: the program and its arguments.
        environ: is added to this process's environment.
        log: takes its output.
    """

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str], log: Path) -> None:
        self.log = log
        self.started = time.perf_counter()
        self._cpu_s = 0.0
        self._peak_mb = 0.0
        pairs = [f"{name}={value}" for name, value in environ.items()]
        env = shutil.which("env") or "/usr/bin/env"
        self._child = Tether(
            [env, f"PYTHONPATH={ROOT}", *pairs, *argv], directory=ROOT, log_path=log
        )
        self.pid = self._child.pid

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._child.stop(_STOP_S)

    @property
    def ended(self) -> bool:
        """Whether it has come to a good end by itself, as a program that reads to an end does."""
        return self._child.exit_code == 0

    def tail(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-3000:] if self.log.exists() else ""

    def check(self) -> None:
        """Fail, with the end of its log, if it has failed."""
        if self._child.exit_code not in {None, 0}:
            raise RuntimeError(f"{self.log.stem} exited {self._child.exit_code}:\n{self.tail()}")

    async def says(self, text: str, timeout_s: float = 120.0) -> None:
        """Wait until its log has ``text``."""
        deadline = time.perf_counter() + timeout_s
        while not self.log.exists() or text not in self.log.read_text(errors="replace"):
            self.check()
            if self.ended or time.perf_counter() > deadline:
                raise RuntimeError(f"{self.log.stem} never said {text!r}:\n{self.tail()}")
            await asyncio.sleep(_LOOK_S)

    def cpu_s(self) -> float:
        """CPU seconds so far, user and system, of all its threads; the last known if it is gone.

        Looks at its memory as well: an engine that ends by itself has none in the end.
        """
        self.peak_rss_mb()
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return self._cpu_s
        self._cpu_s = max(self._cpu_s, (int(fields[11]) + int(fields[12])) / _TICKS)
        return self._cpu_s

    def peak_rss_mb(self) -> float:
        """The most memory it has had resident; the last known if it is gone."""
        try:
            lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        except OSError:
            return self._peak_mb
        found = [line.split()[1] for line in lines if line.startswith("VmHWM")]
        if found:
            self._peak_mb = int(found[0]) / 1024
        return self._peak_mb
