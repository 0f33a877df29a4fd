"""Rows 14 and 15: what the workers keep on disk is damaged, foreign, or does not fit."""

import contextlib
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.broker.fleet import wait_until
from tests.faults.catalogue import catalogue
from tests.faults.cluster import Site, single
from tests.faults.processes import ALL
from tests.faults.trial import Trial

DISK_MB = 16
LEFT_BYTES = 300_000


def flip(paths: list[Path], rng: random.Random) -> None:
    """Change bytes all over these files."""
    for path in paths:
        data = bytearray(path.read_bytes())
        for _ in range(max(1, len(data) // 500)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)


def flip_tables(store: Path, rng: random.Random) -> None:
    """Rot in the sorted tables."""
    flip([path for path in store.glob("*.sst") if path.stat().st_size], rng)


def flip_log(store: Path, rng: random.Random) -> None:
    """Rot in the write-ahead log."""
    flip([path for path in store.glob("*.log") if path.stat().st_size], rng)


def flip_manifest(store: Path, rng: random.Random) -> None:
    """Rot in the list of files."""
    flip(list(store.glob("MANIFEST-*")), rng)


def delete_current(store: Path, rng: random.Random) -> None:
    """The file that names the list of files is gone."""
    (store / "CURRENT").unlink()


def delete_tables(store: Path, rng: random.Random) -> None:
    """A sorted table is gone."""
    for path in list(store.glob("*.sst"))[:1]:
        path.unlink()


def shorten_log(store: Path, rng: random.Random) -> None:
    """The write-ahead log ends early, as after a power cut."""
    for path in store.glob("*.log"):
        with path.open("r+b") as file:
            file.truncate(int(path.stat().st_size * rng.random()))


def another_partition(store: Path, rng: random.Random) -> None:
    """The directory of the next partition lies here."""
    others = sorted(path for path in store.parent.glob("*_*") if path.is_dir() and path != store)
    shutil.rmtree(store)
    shutil.copytree(rng.choice(others), store)


def something_else(store: Path, rng: random.Random) -> None:
    """A directory of who knows what lies here."""
    shutil.rmtree(store)
    store.mkdir()
    (store / "CURRENT").write_text("of the river\n")
    (store / "MANIFEST-000001").write_bytes(rng.randbytes(2_000))
    (store / "000007.sst").write_bytes(rng.randbytes(2_000))


Damage = Callable[[Path, random.Random], None]
DAMAGES: tuple[Damage, ...] = (
    flip_tables, flip_log, flip_manifest, delete_current, delete_tables, shorten_log,
    another_partition, something_else,
)  # fmt: skip


@catalogue.row(
    14, "stores are damaged: flipped bytes, missing and short files, another partition's directory",
    unit="damaged stores", ci=8, nightly=40, at_once=16, invariants=ALL, place=single,
)  # fmt: skip
def damaged_stores(site: Site, home: Path, rng: random.Random, dose: int) -> None:
    """What is damaged is found out, wiped and rebuilt; no entry of it is ever served.

    A directory of something else is left alone: its task stops and says what to do.
    """
    with Trial(site, home / "trial", rng) as trial:
        trial.feed(3_000)
        trial.at_work("one")
        trial.drain()
        for number in range(dose):
            damage = DAMAGES[number % len(DAMAGES)]
            if damage in {flip_log, shorten_log}:
                trial.fleet.kill("one")  # a clean end leaves no log behind
            else:
                assert trial.fleet.stop("one") == 0, trial.fleet.log("one")[-3000:]
            where = trial.fleet.home / "one" / trial.group / "worker-0"
            store = rng.choice(sorted(path for path in where.glob("*_*") if path.is_dir()))
            damage(store, rng)
            heard = trial.listen("one")
            trial.start("one")
            trial.feed(1_000)
            if damage is something_else:  # it may be somebody's: only a person may take it away
                wait_until(
                    lambda heard=heard: "is left as it is; move it away" in heard(),
                    timeout_s=60,
                    what="nobody speaks of the directory that is no store",
                )
                assert trial.fleet.stop("one") != 0, "it ended as if all was well"
                store.rename(home / f"strange-{number}")
                trial.start("one")
            trial.drain()
        trial.settle()


@contextlib.contextmanager
def small_disk(where: Path) -> Iterator[Path]:
    """Mount a small file system; needs root."""
    where.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(where)]
    subprocess.run(mount, check=True)
    try:
        yield where
    finally:
        subprocess.run(["umount", "-l", str(where)], check=True)


def fill(disk: Path) -> Path:
    """Leave next to no room; return the file to delete to have it back."""
    ballast = disk / "ballast"
    room = shutil.disk_usage(disk).free - LEFT_BYTES
    ballast.write_bytes(b"\1" * max(0, room))
    return ballast


@catalogue.row(
    15, "the disk of the stores is full for a while",
    unit="full disks", ci=2, nightly=10, at_once=5, invariants=ALL, place=single,
)  # fmt: skip
def full_disks(site: Site, home: Path, rng: random.Random, dose: int) -> None:
    """The worker says so and does not go on as if nothing was; with room again it goes on."""
    with small_disk(home / "one"), Trial(site, home, rng) as trial:
        trial.feed(2_000)
        trial.at_work("one")
        for _ in range(dose):
            trial.drain()
            ballast = fill(home / "one")
            heard = trial.listen("one")
            with trial.streaming(per_s=2_000):
                wait_until(
                    lambda heard=heard: "space" in heard().lower(),
                    timeout_s=60,
                    what=f"the full disk is not spoken of\n{trial.fleet.log('one')[-2000:]}",
                )
                time.sleep(2)
            ballast.unlink()
            worker = trial.fleet.workers["one"]
            if worker.poll() is not None:
                assert worker.returncode != 0, "it ended as if all was well"
                trial.start("one")
            trial.gone_on()
        trial.settle()
