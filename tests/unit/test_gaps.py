"""Input that is gone before it was read: never a silent jump."""

import pytest

from engine import App
from engine.edges import Position
from engine.errors import TaskStopped
from engine.gaps import passed
from engine.position import pack, unpack
from engine.record import TP
from engine.testing import Driver

IN = TP("numbers", 0)


def adding():
    app = App("adding")
    numbers = app.topic("numbers", value_type=int, key_type=str)
    total = app.Table("total", default=int)

    @app.agent(numbers, sink=[app.topic("out", value_type=int)])
    async def add(stream):
        async for number in stream:
            total["sum"] += number
            yield number

    return app


def pipe(driver, *numbers, partition=0):
    for number in numbers:
        driver.broker.produce("numbers", b"k", b"%d" % number, 0, partition=partition)


def out(driver, partition=0):
    return [int(value) for _, value, *_ in driver.raw("out", partition)]


def overtaken(driver):
    """Four records were read, then a worker was away too long: two of the next four are gone."""
    pipe(driver, 1, 2, 3, 4)
    driver.settle()
    driver.crash()
    pipe(driver, 5, 6, 7, 8)
    driver.broker.begins[IN] = 6


def test_retention_that_overtakes_a_group_stops_the_task_with_the_offsets():
    """Nothing is skipped, nothing is committed; the other task goes on."""
    with Driver(adding(), partitions=2) as driver:
        overtaken(driver)
        pipe(driver, 9, partition=1)
        wanted = (
            r"0_0 is stopped: numbers\[0\] begins at offset 6, but the group has only read up to 4:"
            r" 2 offsets were deleted .* on_lost_input=continue"
        )
        with pytest.raises(TaskStopped, match=wanted):
            driver.restart()
        assert (out(driver), driver.broker.committed[IN].offset) == ([1, 2, 3, 4], 4)
        assert out(driver, 1) == [9]


def test_a_worker_may_be_told_to_go_on_with_what_is_there(caplog):
    """It says what it left behind."""
    with Driver(adding(), on_lost_input="continue") as driver:
        overtaken(driver)
        driver.restart()
        assert out(driver) == [1, 2, 3, 4, 7, 8]
        assert driver.broker.committed[IN].offset == 8
        assert driver.table("total") == [("sum", 25)]
    assert "numbers[0] goes on at offset 6, after 4" in caplog.text


def test_a_gap_with_nothing_behind_it_is_passed_for_good():
    """The position is committed, though no record came."""
    with Driver(adding(), on_lost_input="continue") as driver:
        overtaken(driver)
        driver.broker.begins[IN] = len(driver.broker.logs[IN])
        driver.restart()
        assert driver.broker.committed[IN].offset == driver.broker.begins[IN]
        assert out(driver) == [1, 2, 3, 4]


def test_a_position_beyond_the_end_is_no_position():
    """The topic was created anew, with fewer records."""
    with Driver(adding()) as driver:
        pipe(driver, 1, 2, 3, 4)
        driver.settle()
        driver.crash()
        del driver.broker.logs[IN][2:]
        with pytest.raises(TaskStopped, match="ends at offset 2, but the group's position is 4"):
            driver.restart()


@pytest.mark.parametrize("choice", ["stop", "continue"])
def test_a_topic_that_was_created_anew_is_another_topic(choice):
    """With as many records as the old one had, only its id tells."""
    with Driver(adding(), on_lost_input=choice) as driver:
        driver.crash()
        driver.broker.ids["numbers"] = "one"
        driver.restart()
        pipe(driver, 1, 2, 3, 4)
        driver.settle()
        assert unpack(driver.broker.committed[IN]).topic == "one"
        driver.crash()
        driver.broker.ids["numbers"] = "two"
        driver.broker.logs[IN] = []
        pipe(driver, 10, 20, 30, 40, 50)
        if choice == "stop":
            with pytest.raises(TaskStopped, match=r"created anew.*position 4 is of an earlier"):
                driver.restart()
        else:
            driver.restart()
            assert out(driver) == [1, 2, 3, 4, 10, 20, 30, 40, 50]
            assert driver.broker.committed[IN] == Position(5, '{"topic":"two"}')


def test_what_is_ahead_of_a_gap_stays_ahead():
    """An agent that was further on than another goes on where it was."""
    at = pack({"slow": 4, "fast": 9, "between": 5}, {"t": 7}, topic="a")
    moved = passed(IN, at, (6, 12), "a")
    assert (moved.offset, unpack(moved).ahead, unpack(moved).times) == (6, {"fast": 9}, {"t": 7})
    assert unpack(passed(IN, at, (6, 12), "b")).ahead == {}


def test_partitions_that_were_added_are_worked_on_where_that_is_right():
    """A task without tables needs nothing of the others; one with tables would lack its state."""
    app = App("plain")
    numbers = app.topic("numbers", value_type=int, key_type=str)

    @app.agent(numbers, sink=[app.topic("out", value_type=int)])
    async def echo(stream):
        async for number in stream:
            yield number

    def grow(driver):
        driver.broker.counts["numbers"] = 2
        driver.broker.logs[TP("numbers", 1)] = []
        pipe(driver, 1)
        pipe(driver, 2, partition=1)
        source = driver._engine.edges.source
        driver._run(source.start(["numbers"], revoked=driver._engine._on_revoked,
                                 assigned=driver._engine._on_assigned))  # fmt: skip

    with Driver(app) as driver:
        grow(driver)
        driver.settle()
        assert out(driver) == [1, 2]
    with Driver(adding()) as driver:
        grow(driver)
        with pytest.raises(TaskStopped, match="numbers had 1 partitions when the worker started"):
            driver.settle()
        assert out(driver) == [1]


def test_an_input_that_is_created_anew_while_it_is_read_is_begun_anew(caplog):
    """Kafka forgets the group's position with the topic; a consumer would go on in the middle."""
    with Driver(adding()) as driver:
        driver.crash()
        driver.broker.ids["numbers"] = "one"
        driver.restart()
        pipe(driver, 1, 2, 3, 4)
        driver.settle()
        del driver.broker.ids["numbers"]
        driver.advance(6)
        driver.settle()
        assert "topics are gone: numbers" in caplog.text
        driver.broker.ids["numbers"] = "two"
        driver.broker.logs[IN] = []
        del driver.broker.committed[IN]
        driver.advance(6)
        pipe(driver, *range(10, 20))
        driver.settle()
        assert out(driver) == [1, 2, 3, 4, *range(10, 20)]
        assert driver.table("total") == [("sum", 10 + sum(range(10, 20)))]


def test_records_of_a_new_topic_that_were_skipped_are_not_forgotten():
    """It was read on in the middle before anybody noticed: the task stops, and says so."""
    with Driver(adding()) as driver:
        driver.crash()
        driver.broker.ids["numbers"] = "one"
        driver.restart()
        pipe(driver, 1, 2, 3, 4)
        driver.settle()
        driver.broker.ids["numbers"] = "two"
        driver.broker.logs[IN] = []
        pipe(driver, *range(10, 20))
        with pytest.raises(TaskStopped, match="is of an earlier topic of that name"):
            driver.advance(6)
            driver.settle()
