"""The store on disk does what a dict does, and says in one sentence what it cannot do."""

import inspect
import itertools
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import rocksdict
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from tables.errors import StateError, StoreCorrupted, StoreFailed, StoreForeign, StoreLocked
from tables.identity import identity
from tables.memory import MemoryStore
from tables.store import META, TIMERS, Below, Memory, RocksStore, wipe

FAMILIES = ("one", "two")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def memory():
    return Memory(cache_bytes=8 << 20, write_buffer_bytes=8 << 20)


@pytest.fixture
def store(tmp_path, memory):
    store = RocksStore(tmp_path / "store", FAMILIES, memory)
    yield store
    store.close()


# --- the same as a dict ------------------------------------------------------------------------

keys = st.binary(max_size=3) | st.sampled_from([b"a", b"b", b"a\x00", b"\xff", b"\xff\xff"])
values = st.none() | st.binary(max_size=4)
ranges = st.tuples(keys, keys).map(sorted).map(lambda ends: (ends[0], Below(ends[1])))
entries = st.tuples(keys, values) | ranges
families = st.sampled_from([*FAMILIES, META, TIMERS])
ENDINGS = itertools.count()


class Stores(RuleBasedStateMachine):
    """Both stores are told the same and asked the same."""

    home: Path
    shared: Memory

    @initialize()
    def begin(self):
        self.path = self.home / f"store-{next(ENDINGS)}"
        self.rocks = RocksStore(self.path, FAMILIES, self.shared)
        self.dict = MemoryStore()

    @rule(changes=st.dictionaries(families, st.lists(entries, max_size=6)))
    def write(self, changes):
        self.rocks.write(changes)
        self.dict.write(changes)

    @rule(family=families, key=keys)
    def get(self, family, key):
        assert self.rocks.get(family, key) == self.dict.get(family, key)

    @rule(family=families, wanted=st.lists(keys, max_size=6))
    def get_many(self, family, wanted):
        assert self.rocks.get_many(family, wanted) == self.dict.get_many(family, wanted)

    @rule(
        family=families,
        start=keys,
        end=st.none() | keys,
        limit=st.none() | st.integers(0, 5),
    )
    def scan(self, family, start, end, limit):
        expected = self.dict.scan(family, start, end, limit)
        assert self.rocks.scan(family, start, end, limit) == expected

    @rule()
    def clear(self):
        self.rocks.clear()
        self.dict.clear()

    @rule(families=st.sampled_from([FAMILIES, ("one", "two", "three"), ("two", "one")]))
    def reopen(self, families):
        self.rocks.close()
        self.rocks = RocksStore(self.path, families, self.shared)

    @invariant()
    def equal(self):
        for family in FAMILIES:
            assert self.rocks.scan(family) == self.dict.scan(family)

    def teardown(self):
        self.rocks.close()
        wipe(self.path)


def test_it_does_what_a_dict_does(tmp_path, memory):
    class Here(Stores):
        home = tmp_path
        shared = memory

    run_state_machine_as_test(Here, settings=settings(max_examples=40, stateful_step_count=25))


def test_a_scan_has_no_limit_unless_it_is_given_one(store):
    """A table of more than a million keys is read to its end."""
    for kind in (RocksStore, MemoryStore):
        assert inspect.signature(kind.scan).parameters["limit"].default is None
    store.write({"one": [(b"%05d" % i, b"") for i in range(3_000)]})
    assert len(store.scan("one")) == 3_000
    assert [key for key, _ in store.scan("one", limit=2)] == [b"00000", b"00001"]


def test_a_write_deletes_and_puts_in_the_order_given(store):
    store.write({"one": [(b"k", b"1"), (b"k", None), (b"k", b"2")], "two": [(b"k", None)]})
    assert store.get("one", b"k") == b"2"
    store.write({"one": [(b"k", b"3"), (b"k", None)]})
    assert store.get("one", b"k") is None


def test_a_table_that_is_gone_from_the_code_keeps_its_rows(tmp_path, memory):
    """The directory has a family that nobody names: it is opened, closed and left alone."""
    path = tmp_path / "store"
    for families in (("old",), ("new",), ("old",)):
        store = RocksStore(path, families, memory)
        if families == ("old",):
            store.write({"old": [(b"k", b"v")]})
        store.close()
    store = RocksStore(path, ("old", "new"), memory)
    assert store.get("old", b"k") == b"v"
    store.close()


# --- the directory -----------------------------------------------------------------------------


def test_only_the_owner_may_look_into_the_directory(tmp_path, memory):
    before = os.umask(0)
    try:
        store = RocksStore(tmp_path / "app" / "0_0", FAMILIES, memory)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "app" / "0_0").stat().st_mode) == 0o700
    store.close()


def test_a_directory_in_use_is_refused_with_a_sentence(store, memory):
    with pytest.raises(StoreLocked) as caught:
        RocksStore(store.path, FAMILIES, memory)
    assert str(caught.value) == (
        f"the state directory {store.path} is in use by another process; give each worker its own "
        "with --state-dir, or stop the other one"
    )
    assert isinstance(caught.value, StateError)
    store.write({"one": [(b"k", b"v")]})  # the first one is not harmed
    assert store.get("one", b"k") == b"v"


HOLDER = """
    import sys
    from pathlib import Path
    from tables.store import Memory, RocksStore
    store = RocksStore(Path(sys.argv[1]), ["one"], Memory())
    print("open", flush=True)
    sys.stdin.read()
"""


def python(script, *arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options,
    )  # fmt: skip


def test_a_directory_in_use_by_another_process_is_refused_too(tmp_path, memory):
    with python(HOLDER, tmp_path / "store") as holder:
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(StoreLocked):
            RocksStore(tmp_path / "store", FAMILIES, memory)
        holder.kill()
    RocksStore(tmp_path / "store", FAMILIES, memory).close()


def test_closing_releases_the_lock_even_after_scans(tmp_path, memory):
    path = tmp_path / "store"
    for number in range(5):
        store = RocksStore(path, FAMILIES, memory)
        rows = store.scan("one", limit=3)  # left before its end
        assert len(rows) == min(3, number)
        store.scan("two")
        store.get("one", b"k")
        store.write({"one": [(b"%d" % number, b"v")]})
        store.close()
    wipe(path)
    assert not path.exists()


# --- damage ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def healthy(tmp_path_factory, memory):
    """A closed store with 5,000 rows on disk."""
    path = tmp_path_factory.mktemp("healthy") / "store"
    store = RocksStore(path, FAMILIES, memory)
    rows = [(b"%05d" % i, os.urandom(100)) for i in range(5_000)]
    store.write({"one": rows, "two": rows[:10]})
    store.close()
    RocksStore(path, FAMILIES, memory).close()
    assert list(path.glob("*.sst"))
    return path


def overwrite(pattern, change):
    def damage(path):
        found = sorted(path.glob(pattern), key=lambda file: -file.stat().st_size)
        assert found
        found[0].write_bytes(change(found[0].read_bytes()))

    return damage


def flip(at):
    def change(content):
        place = int(len(content) * at)
        return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]

    return change


AT_OPENING = {
    "garbage in CURRENT": overwrite("CURRENT", lambda _: b"garbage"),
    "CURRENT names nothing": overwrite("CURRENT", lambda _: b"MANIFEST-999999\n"),
    "no CURRENT": lambda path: (path / "CURRENT").unlink(),
    "empty MANIFEST": overwrite("MANIFEST-*", lambda _: b""),
    "truncated MANIFEST": overwrite("MANIFEST-*", lambda content: content[:20]),
    "truncated SST": overwrite("*.sst", lambda content: content[:100]),
    "flipped end of SST": overwrite("*.sst", lambda c: c[:-5] + bytes([c[-5] ^ 0xFF]) + c[-4:]),
    "no SST": lambda path: [file.unlink() for file in path.glob("*.sst")],
}


@pytest.mark.parametrize("damage", AT_OPENING.values(), ids=AT_OPENING)
@pytest.mark.parametrize("name", ["store", "unlocked-blocks"])
def test_damage_is_found_at_opening(healthy, tmp_path, memory, damage, name):
    """Also where the path or the message has a "lock" in it: it is not taken for a held lock."""
    path = tmp_path / name
    shutil.copytree(healthy, path)
    damage(path)
    with pytest.raises(StoreCorrupted) as caught:
        RocksStore(path, FAMILIES, memory)
    assert str(caught.value).startswith(f"the store in {path} cannot be read (")
    assert str(caught.value).endswith("; it is rebuilt from its changelog")
    wipe(path)
    RocksStore(path, FAMILIES, memory).close()


READS = {
    "get": lambda store: [store.get("one", b"%05d" % i) for i in range(5_000)],
    "get_many": lambda store: store.get_many("one", [b"%05d" % i for i in range(5_000)]),
    "scan": lambda store: store.scan("one"),
    "scan to a bound": lambda store: store.scan("one", b"0", b"2"),
    "pages": lambda store: [store.scan("one", b"%05d" % i, limit=10) for i in range(0, 5_000, 10)],
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_damage_in_the_middle_is_found_at_reading(healthy, tmp_path, read):
    """A flipped bit among the rows: no read may end early as if there were no more rows."""
    path = tmp_path / "store"
    shutil.copytree(healthy, path)
    overwrite("*.sst", flip(0.4))(path)
    store = RocksStore(path, FAMILIES, Memory())
    try:
        with pytest.raises(StoreCorrupted, match="cannot be read"):
            read(store)
        store.clear()  # what the engine does about it
        assert store.scan("one") == []
    finally:
        store.close()


# --- kill -9 -----------------------------------------------------------------------------------

WRITER = """
    import sys
    from pathlib import Path
    from tables.store import Memory, RocksStore
    store = RocksStore(Path(sys.argv[1]), ["one", "two"], Memory())
    entries = int(sys.argv[2])
    n = 0
    while True:
        n += 1
        rows = [(b"%03d" % i, b"%d" % n) for i in range(entries)]
        store.write({"one": rows, "two": rows, "headrace.meta": [(b"n", b"%d" % n)]})
        if n in (1, 50):
            print(n, flush=True)
"""


@pytest.mark.parametrize("wait_for", ["1\n", "50\n"])
def test_a_killed_writer_leaves_its_last_batch_whole_or_absent(tmp_path, memory, wait_for):
    entries = 200
    with python(WRITER, tmp_path / "store", entries) as writer:
        said = 0
        while (line := writer.stdout.readline()) != wait_for:
            assert line, "the writer ended by itself"
        said = int(wait_for)
        writer.send_signal(signal.SIGKILL)
    store = RocksStore(tmp_path / "store", FAMILIES, memory)
    n = store.get(META, b"n")
    assert int(n) >= said
    for family in FAMILIES:
        assert store.scan(family) == [(b"%03d" % i, n) for i in range(entries)]
    store.close()


# --- whose it is -------------------------------------------------------------------------------


def rows_of(path, memory, owner):
    store = RocksStore(path, FAMILIES, memory, owner)
    try:
        return store.scan("one")
    finally:
        store.close()


@pytest.mark.parametrize(
    "other",
    [
        identity("shop", "0_1"),
        identity("other", "0_0"),
        identity("shop", "0_0").replace(b"format=1", b"format=0"),
    ],
)
def test_a_store_of_another_task_app_or_format_is_not_served(tmp_path, memory, other):
    """A directory that was copied to the wrong place, or that an older engine has written."""
    path, mine = tmp_path / "store", identity("shop", "0_0")
    store = RocksStore(path, FAMILIES, memory, other)
    store.write({"one": [(b"k", b"v")]})
    store.close()
    with pytest.raises(StoreCorrupted, match=f"it is of {other.decode()}, and not of app=shop"):
        RocksStore(path, FAMILIES, memory, mine)
    assert rows_of(path, memory, other) == [(b"k", b"v")]
    wipe(path)
    assert rows_of(path, memory, mine) == []
    assert rows_of(path, memory, mine) == []


def test_a_store_from_before_there_were_records_is_not_served(tmp_path, memory):
    """It has neither a mark nor a record, and tables that may be of any task."""
    path = tmp_path / "store"
    store = RocksStore(path, FAMILIES, memory)
    store.write({"one": [(b"k", b"v")]})
    store.close()
    (path / "HEADRACE").unlink()
    with pytest.raises(StoreCorrupted, match="has no record of its owner"):
        RocksStore(path, FAMILIES, memory, identity("shop", "0_0"))


def test_a_directory_of_other_software_is_left_alone(tmp_path, memory):
    """Neither somebody's files nor somebody's RocksDB is touched."""
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "thesis.txt").write_text("forty years of work")
    with pytest.raises(StoreForeign, match=r"it has thesis\.txt in it.*move it away"):
        RocksStore(notes, FAMILIES, memory)
    foreign = tmp_path / "foreign"
    database = rocksdict.Rdict(str(foreign))
    database["a"] = "b"
    database.close()
    (foreign / "rocksdict-config.json").unlink()
    before = sorted(file.name for file in foreign.iterdir())
    with pytest.raises(StoreForeign, match="a RocksDB of some other software"):
        RocksStore(foreign, FAMILIES, memory)
    assert sorted(file.name for file in foreign.iterdir()) == before
    assert [file.name for file in notes.iterdir()] == ["thesis.txt"]


# --- a damaged log, a full disk ----------------------------------------------------------------

LOGGED = """
    import os, sys
    from pathlib import Path
    from tables.store import Memory, RocksStore
    store = RocksStore(Path(sys.argv[1]), ["one", "two"], Memory())
    for n in range(1, int(sys.argv[2]) + 1):
        rows = [(b"%03d" % i, b"%d" % n) for i in range(50)]
        store.write({"one": rows, "two": rows, "headrace.meta": [(b"n", b"%d" % n)]})
    os._exit(0)
"""


DAMAGES = {
    "flipped": flip(0.5),
    "flipped late": flip(0.9),
    "truncated": lambda content: content[: len(content) // 2],
    "empty": lambda _: b"",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_of_a_damaged_write_ahead_log_whole_commits_are_served_or_nothing(tmp_path, memory, damage):
    """It ends at an earlier commit, which says so: the changelog has the rest."""
    path, commits = tmp_path / "store", 200
    with python(LOGGED, path, commits) as writer:
        writer.wait(30)
    overwrite("*.log", damage)(path)
    try:
        store = RocksStore(path, FAMILIES, memory)
    except StoreCorrupted:
        return
    n = store.get(META, b"n")
    for family in FAMILIES:
        rows = store.scan(family)
        assert rows == ([] if n is None else [(b"%03d" % i, n) for i in range(50)])
    assert n is None or int(n) < commits
    store.close()


FULL = """
    import resource, sys
    from pathlib import Path
    from tables.errors import StoreFailed
    from tables.store import Memory, RocksStore
    path = Path(sys.argv[1])
    store = RocksStore(path, ["one"], Memory())
    store.write({"one": [(b"k", b"before")]})
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
    try:
        for n in range(100):
            store.write({"one": [(b"%d" % n, b"x" * 10_000)]})
        print("no failure")
    except StoreFailed as error:
        print("failed" if "make room" in str(error) else error)
    store.close()
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
    try:
        RocksStore(path, ["one"], Memory())
        print("opened")
    except StoreFailed:
        print("not opened")
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    store = RocksStore(path, ["one"], Memory())
    print(store.get("one", b"k").decode(), len(store.scan("one")) < 100)
    store.write({"one": [(b"k", b"after")]})
    store.close()
"""


def test_a_full_disk_is_said_to_be_full_and_what_was_there_stays(tmp_path, memory):
    """Files may not grow for a while: no store is taken for corrupt and wiped."""
    path = tmp_path / "store"
    with python(FULL, path) as process:
        said = process.stdout.read().split("\n")
    assert said[:3] == ["failed", "not opened", "before True"]
    store = RocksStore(path, FAMILIES, memory)
    assert store.get("one", b"k") == b"after"
    store.close()


def test_a_store_that_failed_opens_again_while_its_error_is_kept(tmp_path, memory) -> None:
    """An error that is kept must not keep the files open: a worker holds it until there is room."""
    store = RocksStore(tmp_path / "s", ["t"], memory)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(StoreFailed) as kept:
            for number in range(100):
                store.write({"t": [(b"%d" % number, b"v" * 1_000)]})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    store.close()
    again = RocksStore(tmp_path / "s", ["t"], memory)
    assert again.get("t", b"0") == b"v" * 1_000
    again.close()
    assert "File too large" in str(kept.value)
