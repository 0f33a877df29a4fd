"""The state directory is ours alone, and nothing in it is run."""

import os
import stat
from pathlib import Path

import pytest
import rocksdict

from engine.config import make
from engine.errors import ConfigError
from engine.kafka.edges import claim_home
from tables.errors import StoreForeign
from tables.store import Memory, RocksStore
from tests.shell import error_of, headrace


@pytest.fixture(autouse=True)
def umask():
    """Claiming a directory sets the process's."""
    before = os.umask(0o022)
    yield
    os.umask(before)


class Evil:
    """Leaves a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_nobody_else_can_look_into_the_state(tmp_path: Path) -> None:
    """Directories 0700, also those that were open before, and files 0600."""
    (tmp_path / "state" / "app").mkdir(parents=True)
    home = claim_home(make({"id": "app", "state_dir": tmp_path / "state"}, {}))
    store = RocksStore(home / "0_0", ["t"], Memory())
    store.write({"t": [(b"k", b"v")]})
    store.close()
    found = list((tmp_path / "state").rglob("*"))
    assert len(found) > 5
    for path in found:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode & 0o077 == 0, f"{path} {mode:o}"


def test_a_directory_that_is_shared_is_not_closed(tmp_path: Path) -> None:
    """A volume, or /tmp: what is ours is inside of it."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(0o1777)
    home = claim_home(make({"id": "app", "state_dir": tmp_path / "state"}, {}))
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o1777
    assert stat.S_IMODE(home.parent.stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
@pytest.mark.parametrize("whose", ["state", "state/app", "state/app/worker-0"])
def test_somebody_elses_directory_is_refused(tmp_path: Path, whose: str) -> None:
    """He could read the state, or put another in its place."""
    (tmp_path / whose).mkdir(parents=True)
    os.chown(tmp_path / whose, 12345, -1)
    with pytest.raises(ConfigError, match="belongs to user 12345, and this is user 0: run as"):
        claim_home(make({"id": "app", "state_dir": tmp_path / "state"}, {}))


def test_a_directory_that_cannot_be_made_is_told_in_a_sentence(tmp_path: Path) -> None:
    """A file is in its place."""
    (tmp_path / "state").write_text("")
    with pytest.raises(ConfigError, match=r"state directory .*: "):
        claim_home(make({"id": "app", "state_dir": tmp_path / "state"}, {}))


def test_a_database_that_is_not_ours_is_neither_run_nor_deleted(tmp_path: Path) -> None:
    """rocksdict unpickles what it reads, except in raw mode."""
    mark, path = tmp_path / "evil", tmp_path / "db"
    database = rocksdict.Rdict(str(path))
    database["a"] = Evil(mark)
    database.close()
    with pytest.raises(StoreForeign, match="is left as it is; move it away"):
        RocksStore(path, ["t"], Memory())
    assert not mark.exists()
    database = rocksdict.Rdict(str(path))
    assert database["a"] is None  # it is all there still, and as bad as it was
    database.close()
    assert mark.exists()


def test_a_raw_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    """Opened with the same library, in raw mode, or with families of its own."""
    for number, families in enumerate(([], ["theirs"])):
        path = tmp_path / str(number)
        options = rocksdict.Options(raw_mode=True)
        options.create_if_missing(True)  # noqa: FBT003
        database = rocksdict.Rdict(str(path), options)
        for name in families:
            database.create_column_family(name, options)
        database[b"a"] = b"b"
        database.close()
        with pytest.raises(StoreForeign):
            RocksStore(path, ["t"], Memory())


def test_a_worker_says_so_and_ends(tmp_path: Path) -> None:
    """Exit status 78: trying again is of no use."""
    (tmp_path / "state").write_text("")
    done = headrace(
        "worker", "agents", "--state-dir", tmp_path / "state" / "x", "--broker", "127.0.0.1:1"
    )
    assert "state directory" in error_of(done)
    assert done.returncode == 78
