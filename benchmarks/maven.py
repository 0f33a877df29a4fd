"""Build the Kafka Streams peer: once for each state of its sources, kept in the cache."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

SOURCES = Path(__file__).parent / "peers" / "kafka_streams"
CACHE = Path.home() / ".cache" / "headrace" / "bench"
_BUILD_S = 600


class Unavailable(Exception):
    """A peer cannot run here; the message says why."""


def fingerprint(folder: Path) -> str:
    """Name a folder's content."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and "target" not in p.parts):
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def classpath(progress: Callable[[str], None]) -> str:
    """Return the built peer's class path.

    Raises:
        Unavailable: no Java, no Maven, or the build failed.
    """
    maven = shutil.which("mvn")
    if shutil.which("java") is None or maven is None:
        raise Unavailable("Java or Maven is not installed")
    home = CACHE / f"kafka-streams-{fingerprint(SOURCES)}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "kafka-streams.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not home.is_dir():
            progress("building the Kafka Streams peer with Maven (once)")
            _build(maven, home)
    return f"{home / 'target' / 'classes'}:{home / 'libs'}/*"


def _build(maven: str, home: Path) -> None:
    """Build beside the final place, so that it is there whole or not at all."""
    with tempfile.TemporaryDirectory(dir=CACHE) as partial:
        work = Path(partial) / "build"
        shutil.copytree(SOURCES, work)
        goals = ["package", "dependency:copy-dependencies", "-DoutputDirectory=libs"]
        argv = [maven, "-B", "-q", *goals, "-DincludeScope=runtime"]
        done = subprocess.run(
            argv, cwd=work, capture_output=True, text=True, timeout=_BUILD_S, check=False
        )
        if done.returncode:
            raise Unavailable(f"Maven failed: {done.stdout[-1500:]}{done.stderr[-500:]}")
        work.rename(home)
