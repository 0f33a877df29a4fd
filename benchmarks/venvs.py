"""Virtual environments of peers whose dependencies are their own, made on demand."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Sequence

from benchmarks.maven import CACHE, Unavailable

_PIP_S = 600


def python_with(name: str, requirements: Sequence[str], progress: Callable[[str], None]) -> str:
    """Return an interpreter that has these packages.

    Raises:
        Unavailable: pip could not install them.
    """
    version = "{}.{}".format(*sys.version_info[:2])
    mark = hashlib.sha256(" ".join([version, *requirements]).encode()).hexdigest()[:12]
    home = CACHE / f"{name}-{mark}"
    python, done = home / "bin" / "python", home / "complete"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            progress(f"installing {' '.join(requirements)} (once)")
            shutil.rmtree(home, ignore_errors=True)
            venv.create(home, with_pip=True)
            pip = subprocess.run(
                [python, "-m", "pip", "install", "-q", *requirements],
                capture_output=True, text=True, timeout=_PIP_S, check=False,
            )  # fmt: skip
            if pip.returncode:
                raise Unavailable(f"pip failed: {pip.stderr[-500:].strip()}")
            done.touch()
    return str(python)
