"""An engine's process: started, watched from outside through /proc, stopped."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from engine.tether import Tether

_TICKS = os.sysconf("SC_CLK_TCK")
_ROOT = Path(__file__).parents[1]
_STOP_S = 15.0
_LOOK_S = 0.02


class Process:
    """A Python module that runs as a process of its own until the block is left."""

    def __init__(self, module: Sequence[str], environ: Mapping[str, str], log: Path) -> None:
        self.log = log
        self.started = time.perf_counter()
        pairs = [f"{name}={value}" for name, value in environ.items()]
        env = shutil.which("env") or "/usr/bin/env"
        argv = [env, f"PYTHONPATH={_ROOT}", *pairs, sys.executable, "-m", *module]
        self._child = Tether(argv, directory=_ROOT, log_path=log)
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

    def check(self) -> None:
        """Fail, with the end of its log, if it has ended."""
        if self._child.exit_code is not None:
            tail = self.log.read_text(errors="replace")[-3000:]
            raise RuntimeError(f"{self.log.stem} exited {self._child.exit_code}:\n{tail}")

    async def says(self, text: str) -> None:
        """Wait until its log has ``text``."""
        while text not in self.log.read_text(errors="replace"):
            self.check()
            await asyncio.sleep(_LOOK_S)

    def cpu_s(self) -> float:
        """CPU seconds so far, user and system, of all its threads."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def peak_rss_mb(self) -> float:
        """The most memory it has had resident."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        kb = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
        return int(kb) / 1024
