"""Standbys follow what is committed, and start with next to nothing to restore."""

import asyncio

from engine import App
from engine.assignment import Assignment
from engine.edges import Assigned
from engine.errors import BrokerError
from engine.metrics import Metrics
from engine.record import TP
from engine.testing import Driver
from engine.testing.memory import MemoryBroker, memory_edges
from tables.errors import StoreCorrupted
from tables.memory import MemoryStore

CHANGELOG = TP("sums-total-changelog", 0)
HERE = frozenset({TP("numbers", 0), TP("rates", 0)})
NOTHING: frozenset[TP] = frozenset()


def sums_app() -> App:
    """Adds numbers up by key; knows rates that are a topic."""
    app = App("sums")
    numbers = app.topic("numbers", key_type=str, value_type=int)
    rates = app.topic("rates", key_type=str, value_type=int, compacting=True)
    total = app.Table("total", default=int, key_type=str, value_type=int)
    table = app.Table("rates", source=rates)

    @app.agent(numbers, tables=[table])
    async def add(stream):
        async for key, number in stream.items():
            total[key] += number * table.get(key, 1)

    return app


class OtherWorker:
    """A second worker on the same broker, with a disk of its own, which is told what it has."""

    def __init__(self, app: App, broker: MemoryBroker, clock) -> None:
        self.metrics = Metrics()
        self.stores: dict[str, MemoryStore] = {}
        edges = memory_edges(broker, clock)
        self.edges = edges._replace(
            open_store=lambda task, _: self.stores.setdefault(task, MemoryStore())
        )
        topology = app.topology().measured({"numbers": 1, "rates": 1})
        self.assignment = Assignment(
            topology, self.edges, self.metrics, app.settings(), broker.counts.__getitem__
        )

    async def take(self, active: frozenset[TP], standby: frozenset[TP]) -> None:
        await self.assignment.take(Assigned(active, standby, 2))

    def restored(self) -> int:
        return self.metrics.totals.get("restored", 0)

    def rows(self, table: str) -> dict[bytes, bytes]:
        return dict(self.stores["0_0"].scan(table)) if "0_0" in self.stores else {}


def feed(driver: Driver, *numbers: int) -> None:
    for number in numbers:
        driver.pipe("numbers", key=f"k{number % 3}", value=number, timestamp=number)


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.02)


def own_rows(driver: Driver) -> dict[bytes, bytes]:
    return dict(driver.broker.stores["0_0"].scan("total"))


def test_a_copy_follows_and_starts_with_nothing_left_to_restore() -> None:
    app = sums_app()
    with Driver(app) as driver:
        other = OtherWorker(app, driver.broker, driver.clock)

        async def follow() -> None:
            await other.take(NOTHING, HERE)
            await until(lambda: other.rows("total") == own_rows(driver))

        async def start() -> None:
            await other.take(HERE, NOTHING)
            await until(lambda: not other.assignment.coming)
            assert other.restored() == before
            [task] = other.assignment.working()
            assert dict(task.tables["total"].items()) == {"k0": 9, "k1": 12, "k2": 15}
            await other.assignment.close()

        feed(driver, 0, 1, 2, 3)
        driver._run(follow())
        feed(driver, 4, 5, 6, 7, 8)
        driver._run(until(lambda: other.rows("total") == own_rows(driver)))
        before = other.restored()
        driver._run(start())
        assert before > 0


def test_a_table_that_is_a_topic_is_followed_to_its_committed_position() -> None:
    """What lies beyond is input of the task, and not of its copy."""
    app = sums_app()
    with Driver(app) as driver:
        driver.pipe("rates", key="k0", value=10, timestamp=0)
        other = OtherWorker(app, driver.broker, driver.clock)
        driver._run(other.take(NOTHING, HERE))
        driver._run(until(lambda: other.rows("rates") == {b"k0": b"10"}))
        driver.broker.produce("rates", b"k0", b"20", 1)  # nobody has worked on it yet
        driver._run(asyncio.sleep(0.6))
        assert other.rows("rates") == {b"k0": b"10"}
        driver.settle()
        driver._run(until(lambda: other.rows("rates") == {b"k0": b"20"}))
        driver._run(other.assignment.close())


def test_a_copy_of_a_changelog_that_is_gone_is_thrown_away() -> None:
    app = sums_app()
    with Driver(app) as driver:
        feed(driver, *range(30))
        other = OtherWorker(app, driver.broker, driver.clock)
        driver._run(other.take(NOTHING, HERE))
        driver._run(until(lambda: other.rows("total") == own_rows(driver)))
        log = driver.broker.logs[CHANGELOG]
        rows = [record for record in log if record is not None][:1]
        log[:] = rows
        key, value = rows[0][0], rows[0][1]
        driver._run(until(lambda: other.rows("total") == {key: value}))
        driver._run(other.assignment.close())


def test_trouble_with_the_broker_or_the_disk_ends_no_copy(caplog) -> None:
    app = sums_app()
    with Driver(app) as driver:
        feed(driver, 1, 2)
        other = OtherWorker(app, driver.broker, driver.clock)
        troubles = [BrokerError("away"), StoreCorrupted("x", "a block")]

        async def bounds(tps, *, stable=False):
            if troubles:
                raise troubles.pop()
            return {tp: (0, len(driver.broker.logs[tp])) for tp in tps}

        other.edges.log.bounds = bounds
        driver._run(other.take(NOTHING, HERE))
        driver._run(until(lambda: other.rows("total") == own_rows(driver)))
        assert "do not follow for now: away" in caplog.text
        driver._run(other.assignment.close())


def test_what_ends_the_following_is_raised_in_the_loop() -> None:
    app = sums_app()
    with Driver(app) as driver:
        other = OtherWorker(app, driver.broker, driver.clock)

        async def bounds(tps, *, stable=False):
            raise ZeroDivisionError

        async def fail() -> None:
            await other.take(NOTHING, HERE)
            await asyncio.sleep(0.05)
            try:
                other.assignment.raise_failed()
            except ZeroDivisionError:
                return
            raise AssertionError("nothing was raised")

        other.edges.log.bounds = bounds
        driver._run(fail())


def test_a_copy_that_is_not_wanted_any_more_is_closed() -> None:
    app = sums_app()
    with Driver(app) as driver:
        feed(driver, 1)
        other = OtherWorker(app, driver.broker, driver.clock)
        driver._run(other.take(NOTHING, HERE))
        driver._run(until(lambda: other.rows("total") == own_rows(driver)))
        driver._run(other.take(NOTHING, NOTHING))
        feed(driver, 2)
        driver._run(asyncio.sleep(0.6))
        assert other.rows("total") != own_rows(driver)
        driver._run(other.assignment.close())
