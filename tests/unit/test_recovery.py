"""Stores follow Kafka: what a worker reads again after a crash, and what it rebuilds."""

import pytest

from engine import App
from engine.edges import Position
from engine.errors import TaskStopped
from engine.record import TP
from engine.testing import Driver
from tables.errors import StoreFailed
from tables.memory import MemoryStore

CHANGELOG = "sums-total-changelog"


def sums_app() -> App:
    """Adds numbers up by key."""
    app = App("sums")
    numbers = app.topic("numbers", key_type=str, value_type=int)
    total = app.Table("total", default=int, key_type=str, value_type=int)

    @app.agent(numbers)
    async def add(stream):
        async for key, number in stream.items():
            total[key] += number

    return app


def feed(driver: Driver, count: int) -> None:
    for number in range(count):
        driver.pipe("numbers", key=f"k{number % 7}", value=number, timestamp=number)


def restored(driver: Driver) -> int:
    return driver._require().metrics.totals.get("restored", 0)


class StoreThatFailsOnce(MemoryStore):
    """A store whose next write is lost, as when the process dies right before it."""

    def __init__(self) -> None:
        super().__init__()
        self.failing = False

    def write(self, changes):
        if self.failing:
            self.failing = False
            raise OSError("the process died here")
        super().write(changes)


def test_a_start_with_an_intact_store_reads_only_the_tail() -> None:
    """After a crash the store knows all but the commit that was on its way: nothing, here."""
    with Driver(sums_app()) as driver:
        feed(driver, 50)
        before = driver.table("total")
        driver.crash()
        driver.restart()
        assert restored(driver) == 0
        assert driver.table("total") == before


def test_a_lost_store_is_rebuilt_from_the_changelog() -> None:
    """The state directory is a cache: without it the table is the same, only later."""
    with Driver(sums_app()) as driver:
        feed(driver, 50)
        before = driver.table("total")
        driver.crash()
        driver.broker.stores.clear()
        driver.restart()
        assert restored(driver) == len(driver.raw(CHANGELOG))
        assert driver.table("total") == before
        feed(driver, 7)
        driver.crash()
        driver.restart()
        assert restored(driver) == 0


def test_a_commit_that_kafka_has_and_the_store_has_not_is_restored() -> None:
    """Killed between EndTxn and the store's write: the tail of the changelog has it."""
    with Driver(sums_app()) as driver:
        store = driver.broker.stores["0_0"] = StoreThatFailsOnce()
        driver.crash()
        driver.restart()
        feed(driver, 20)
        store.failing = True
        with pytest.raises(OSError, match="died here"):
            driver.pipe("numbers", key="k0", value=1000, timestamp=99)
        driver.crash()
        driver.restart()
        assert restored(driver) == 1
        assert dict(driver.table("total"))["k0"] == sum(range(0, 20, 7)) + 1000


def test_a_store_that_is_ahead_of_its_changelog_is_not_believed() -> None:
    """The topic was deleted and created anew: the store belongs to one that is gone."""
    with Driver(sums_app()) as driver:
        feed(driver, 50)
        driver.crash()
        log = driver.broker.logs[TP(CHANGELOG, 0)]
        del log[10:]
        expected = {}
        for record in log:
            if record is not None:
                expected[record[0].decode()] = record[1]
        driver.restart()
        store = driver.broker.stores["0_0"]
        assert dict(store.scan("total")) == {k.encode(): v for k, v in expected.items()}


def test_a_restore_that_is_interrupted_goes_on_where_it_was() -> None:
    """Each chunk is written with its offset."""
    with Driver(sums_app()) as driver:
        feed(driver, 30)
        before = driver.table("total")
        end = len(driver.broker.logs[TP(CHANGELOG, 0)])
        driver.crash()
        half = MemoryStore()
        batch = driver.broker.batch(TP(CHANGELOG, 0), 0, end // 2)
        half.write({
            "total": list(zip(batch.keys, batch.values, strict=True)),
            "headrace.meta": [(f"changelog:{CHANGELOG}".encode(), b"%d" % batch.next_offset)],
        })  # fmt: skip
        driver.broker.stores["0_0"] = half
        driver.restart()
        assert 0 < restored(driver) < len(driver.raw(CHANGELOG))
        assert driver.table("total") == before


def test_a_table_that_is_a_topic_is_restored_up_to_the_committed_position_only() -> None:
    """What lies beyond it is input: it meets the streams in the order of time."""
    app = App("look")
    rates = app.topic("rates", key_type=str, value_type=int, compacting=True)
    asks = app.topic("asks", key_type=str, value_type=int)
    answers = app.topic("answers", key_type=str, value_type=int)
    table = app.Table("rates", source=rates)

    @app.agent(asks, sink=[answers])
    async def answer(stream):
        async for _, rate in stream.join(table, how="left"):
            yield rate if rate is not None else -1

    with Driver(app) as driver:
        driver.pipe("rates", key="eur", value=1, timestamp=0)
        driver.pipe("asks", key="eur", value=0, timestamp=1)
        driver.crash()
        driver.broker.stores.clear()
        driver.broker.produce("asks", b"eur", b"0", 9)
        driver.broker.produce("rates", b"eur", b"2", 10)
        driver.broker.produce("asks", b"eur", b"0", 11)
        driver.restart()
        assert [out.value for out in driver.read("answers")] == [1, 1, 2]


def test_on_the_first_start_a_table_that_is_a_topic_is_read_before_any_stream_flows() -> None:
    """Whatever the timestamps say: yesterday's events meet today's load of the table."""
    app = App("first")
    rates = app.topic("rates", key_type=str, value_type=int, compacting=True)
    asks = app.topic("asks", key_type=str, value_type=int)
    answers = app.topic("answers", key_type=str, value_type=int)
    table = app.Table("rates", source=rates)

    @app.agent(asks, sink=[answers])
    async def answer(stream):
        async for _ in stream:
            yield table.get("eur") or -1

    driver = Driver(app)
    driver.broker.produce("asks", b"eur", b"0", 1)
    driver.broker.produce("rates", b"eur", b"5", 1_000_000)
    with driver:
        assert [out.value for out in driver.read("answers")] == [5]
        assert driver.broker.committed[TP("rates", 0)] == Position(1, "")


def test_a_store_of_a_changelog_that_was_created_anew_is_rebuilt() -> None:
    """The new topic has grown beyond the old one's end: only its id tells."""
    with Driver(sums_app()) as driver:
        driver.crash()
        driver.broker.ids[CHANGELOG] = "one"
        driver.restart()
        feed(driver, 20)
        driver.crash()
        driver.broker.ids[CHANGELOG] = "two"
        log = driver.broker.logs[TP(CHANGELOG, 0)]
        log[:] = [(b"k0", b"\x4d", 0, ())] * (len(log) + 5)
        driver.restart()
        assert driver.table("total") == [("k0", 77)]
        driver.crash()
        driver.restart()
        assert driver.table("total") == [("k0", 77)]
        assert restored(driver) == 0


@pytest.mark.parametrize(("away_h", "back"), [(20, ["k0", "k1"]), (30, ["k1"])])
def test_a_store_that_is_older_than_tombstones_is_rebuilt(away_h, back) -> None:
    """While it was away a key was deleted, and compaction has removed the deletion since."""
    with Driver(sums_app()) as driver:
        driver.pipe("numbers", key="k0", value=1)
        driver.pipe("numbers", key="k1", value=1)
        driver.crash()
        log = driver.broker.logs[TP(CHANGELOG, 0)]
        log[:] = [None if record and record[0] == b"k0" else record for record in log]
        log += [None, None]  # where the tombstone of k0 was, and its transaction's marker
        driver.clock.move_to(away_h * 3_600_000)
        driver.restart()
        assert [key for key, _ in driver.table("total")] == back


def test_a_quiet_store_is_not_rebuilt_for_its_age() -> None:
    """Nothing came since its last commit but that commit's own marker."""
    with Driver(sums_app()) as driver:
        feed(driver, 20)
        driver.crash()
        driver.clock.move_to(100 * 3_600_000)
        driver.restart()
        assert restored(driver) == 0


class Full(MemoryStore):
    """A store on a disk that is full now and then."""

    full = False

    def write(self, changes):
        if self.full:
            raise StoreFailed("somewhere", "No space left on device")
        super().write(changes)


def test_a_full_disk_loses_no_commit_and_goes_on_when_there_is_room() -> None:
    """What Kafka has and the store has not comes from the changelog; the task waits until then."""
    with Driver(sums_app(), partitions=2) as driver:
        driver.crash()
        store = driver.broker.stores["0_0"] = Full()
        driver.restart()
        driver.pipe("numbers", key="a", value=1, partition=0)
        store.full = True
        driver.pipe("numbers", key="a", value=10, partition=0)
        driver.pipe("numbers", key="b", value=5, partition=1)
        driver.pipe("numbers", key="a", value=100, partition=0)
        driver.advance(20)
        assert driver.table("total") == [("b", 5)]
        [parked] = driver._engine.assignment.parking.parked.values()
        assert "make room or mend the disk" in str(parked.error)
        store.full = False
        driver.advance(60)
        assert sorted(driver.table("total")) == [("a", 111), ("b", 5)]
        assert dict(store.scan("total")) == {b"a": b"\x6f"}  # 111


def test_a_changelog_that_lost_what_the_store_needs_stops_the_task() -> None:
    """An incomplete table would be wrong in silence; the other task's changelog is whole."""
    with Driver(sums_app(), partitions=2) as driver:
        feed(driver, 50)
        before = driver.table("total")
        driver.crash()
        kept = driver.broker.stores.pop("0_0")
        driver.broker.begins[TP(CHANGELOG, 0)] = 10
        wanted = r"0_0 is stopped: .*begins at offset 10, .* up to 0: 10 offsets .*cleanup.policy"
        with pytest.raises(TaskStopped, match=wanted):
            driver.restart()
        assert not list(driver.broker.stores["0_0"].scan("total"))
        driver.crash()
        driver.broker.stores["0_0"] = kept
        driver.restart()
        assert driver.table("total") == before


def test_a_shortened_changelog_is_taken_as_it_is_if_that_is_wished() -> None:
    with Driver(sums_app(), on_lost_input="continue") as driver:
        feed(driver, 50)
        driver.crash()
        driver.broker.stores.clear()
        end = len(driver.broker.logs[TP(CHANGELOG, 0)])
        driver.broker.begins[TP(CHANGELOG, 0)] = end - 2
        driver.restart()
        assert len(driver.table("total")) == 1


def test_a_changelog_may_begin_behind_what_the_store_has() -> None:
    """What was deleted is in the store."""
    with Driver(sums_app()) as driver:
        feed(driver, 50)
        before = driver.table("total")
        driver.crash()
        driver.broker.begins[TP(CHANGELOG, 0)] = len(driver.broker.logs[TP(CHANGELOG, 0)])
        driver.restart()
        assert driver.table("total") == before
