"""A child process that cannot outlive this one.

Three things would leave a child behind, or take it too early: a parent that is killed, a parent
that exits without stopping it, and a Ctrl-C that reaches the child while the parent still needs
it. The kernel answers the first (``PR_SET_PDEATHSIG``, Linux only), ``atexit`` the second, a
session of the child's own the third.

``PR_SET_PDEATHSIG`` has two traps, and both shape this module:

* It fires when the *thread* that forked the child ends. So every child has a thread of its own,
  which forks it and then waits for it; a child started from a short-lived worker thread lives on.
* It must be set inside the child. ``preexec_fn`` runs Python between fork and exec, which is
  unsafe (and from 3.12 on warned about) in a process with threads. Instead the child begins as
  a tiny Python program that sets it and turns into the real one, under the same pid.
"""

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Final

_LINUX: Final[bool] = sys.platform.startswith("linux")
_AT_EXIT_S: Final = 5.0
_KILL_S: Final = 10.0

# argv: the parent's pid, then the command. A parent gone before prctl was called would never be
# noticed, hence getppid. Python ignores SIGPIPE and an exec would pass that on, hence SIG_DFL.
_SHIM: Final = """
import ctypes, os, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(1, int(signal.SIGKILL), 0, 0, 0):
    raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
if os.getppid() != int(sys.argv[1]):
    os._exit(1)
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
os.execv(sys.argv[2], sys.argv[2:])
"""


class Tether:
    """A running child process, tied to the life of this one."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        directory: Path,
        log_path: Path | None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """Start ``argv``.

        Args:
            argv: The program, by its absolute path, and its arguments.
            directory: Its working directory.
            log_path: Where its output is appended; None: it goes where this process's goes.
            environ: Its environment; None: this process's.
        """
        self._owner = os.getpid()
        self._gone = threading.Event()
        started: Future[subprocess.Popen[bytes]] = Future()
        threading.Thread(
            target=self._keep,
            args=(self._tie(argv), directory, log_path, environ, started),
            name=f"tether-{Path(argv[0]).name}",
            daemon=True,
        ).start()
        self._process = started.result()
        atexit.register(self._at_exit)

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """How the child ended (negative: the signal), or None while it runs."""
        return self._process.returncode if self._gone.is_set() else None

    def wait(self, timeout_s: float) -> bool:
        """Wait for the child to end; tell whether it has."""
        return self._gone.wait(timeout_s)

    def ask_to_stop(self) -> None:
        """Ask the child to end; nothing waits for it."""
        self._send(signal.SIGTERM)

    def stop(self, timeout_s: float) -> None:
        """Ask the child to end, and kill it if it has not after ``timeout_s``."""
        self._send(signal.SIGTERM)
        if not self.wait(timeout_s):
            self.kill()
        atexit.unregister(self._at_exit)

    def kill(self) -> None:
        """Kill the child at once, and return when it is gone."""
        self._send(signal.SIGKILL)
        if not self.wait(_KILL_S):
            raise RuntimeError(f"process {self.pid} is still there {_KILL_S:g} s after SIGKILL")
        atexit.unregister(self._at_exit)

    def _send(self, signum: signal.Signals) -> None:
        if not self._gone.is_set():
            self._process.send_signal(signum)

    def _at_exit(self) -> None:
        if os.getpid() == self._owner:  # not in a process forked off this one
            self.stop(_AT_EXIT_S)

    def _tie(self, argv: Sequence[str]) -> list[str]:
        if _LINUX:
            return [sys.executable, "-I", "-S", "-c", _SHIM, str(self._owner), *argv]
        return list(argv)

    def _keep(
        self,
        argv: list[str],
        directory: Path,
        log_path: Path | None,
        environ: Mapping[str, str] | None,
        started: Future[subprocess.Popen[bytes]],
    ) -> None:
        try:
            with contextlib.nullcontext() if log_path is None else log_path.open("ab") as log:
                process = subprocess.Popen(  # noqa: S603 - the caller's own command
                    argv,
                    cwd=directory,
                    env=environ,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=None if log is None else subprocess.STDOUT,
                    start_new_session=True,
                )
        except BaseException as error:  # noqa: BLE001 - it is the starting thread's to raise
            started.set_exception(error)
            return
        started.set_result(process)
        process.wait()
        self._gone.set()
