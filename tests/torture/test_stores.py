"""Stores are read from outside, whether their worker has closed them or was killed."""

import subprocess
import sys
from pathlib import Path

from engine.torture.stores import dump
from tests.shell import ROOT, environ

WRITE = """
import os, sys
from pathlib import Path
from tables.store import META, Memory, RocksStore
store = RocksStore(Path(sys.argv[1]), ["counts", "sessions"], Memory())
store.write({"counts": [(b"a", b"1"), (b"b", b"2")], META: [(b"changelog:app-counts", b"7")]})
store.write({"counts": [(b"b", None)], META: [(b"source:raw", b"9")]})
if sys.argv[2] == "close":
    store.close()
os._exit(0)
"""


def written(path: Path, how: str) -> None:
    subprocess.run(
        [sys.executable, "-c", WRITE, path, how], cwd=ROOT, env=environ(), check=True, timeout=30
    )


def test_every_store_under_a_directory_is_read(tmp_path: Path) -> None:
    """Its partition, its entries, and how far it knows which changelog."""
    written(tmp_path / "w1" / "app" / "worker-0" / "0_12", "close")
    written(tmp_path / "w2" / "app" / "worker-0" / "0_3", "be killed")
    stores = dump([tmp_path / "w1", tmp_path / "w2", tmp_path / "nothing"])
    assert [store.partition for store in stores] == [12, 3]
    for store in stores:
        assert store.known == {"app-counts": 7}
        assert store.tables["counts"] == {b"a": b"1"}
        assert store.tables["sessions"] == {}
