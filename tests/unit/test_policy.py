"""What becomes of events that agents cannot bear: tries, pauses, dead letters, stops, skips."""

import pytest

from engine import App, retry
from engine.errors import ConfigError, TaskStopped
from engine.policy import Policy, policy_of
from engine.record import TP
from engine.testing import Driver


def adding(**options):
    """An app that adds numbers up by partition and cannot bear 13, as long as it is told so."""
    app = App("adding")
    numbers = app.topic("numbers", value_type=int, key_type=str)
    total = app.Table("total", default=int)
    calls = []

    @app.agent(numbers, sink=[app.topic("out", value_type=int)], **options)
    async def add(stream):
        async for number in stream:
            calls.append(number)
            total["sum"] += number
            yield number
            if number == 13 and calls.count(13) <= app.conf_fails:
                raise ArithmeticError("a secret")

    app.conf_fails = 1 << 30
    return app, numbers, calls


def pipe(driver, *numbers, partition=0):
    driver.pipe_many(
        "numbers", [("k", number, index) for index, number in enumerate(numbers)],
        partition=partition,
    )  # fmt: skip


def out(driver, partition=0):
    return [int(value) for _, value, *_ in driver.raw("out", partition)]


def test_a_policy_reads_as_it_is_written():
    """Tries, their pauses, and the end."""
    policy = retry(3, backoff=0.2).then("stop")
    assert policy == Policy(3, 0.2, 60.0, "stop")
    assert [policy.pause_ms(tries) for tries in (1, 2, 3)] == [200, 400, 800]
    assert retry(40, backoff=1, most=5).pause_ms(30) == 5000
    assert retry(2).outcome == "dead_letter"
    assert policy_of("skip", 2) == Policy(2, outcome="skip")


@pytest.mark.parametrize(
    "make",
    [
        lambda: policy_of("ignore"),
        lambda: retry(-1),
        lambda: retry(1, backoff=-1),
        lambda: retry(1).then("again"),
        lambda: policy_of(retry(1), 2),
    ],
)
def test_a_policy_that_is_none_is_refused(make):
    with pytest.raises(ConfigError, match=r"retry|on_error"):
        make()


def test_the_pause_before_a_try_holds_up_no_other_task():
    """The failing partition waits 1 s, then 2 s; the other one goes on; both end right."""
    app, _, calls = adding(on_error=retry(2, backoff=1))
    app.conf_fails = 2
    with Driver(app, partitions=2) as driver:
        pipe(driver, 1, 13, 2)
        assert (out(driver), calls.count(13)) == ([], 1)
        pipe(driver, 5, 6, partition=1)
        assert out(driver, 1) == [5, 6]
        driver.advance(0.999)
        assert calls.count(13) == 1
        driver.advance(0.001)
        assert calls.count(13) == 2
        driver.advance(1.9)
        assert (out(driver), calls.count(13)) == ([], 2)
        driver.advance(0.1)
        assert (out(driver), calls.count(13)) == ([1, 13, 2], 3)
        assert driver.dead_letters("numbers") == []


def test_a_dead_letter_says_who_failed_where_and_how_often():
    """The source's coordinates, the agent, the exception, the attempts: and not the value."""
    app, _, _ = adding(on_error=retry(2, backoff=0.5))
    with Driver(app) as driver:
        pipe(driver, 1, 13, 2)
        driver.advance(5)
        assert out(driver) == [1, 2]
        [letter] = driver.dead_letters("numbers")
        assert letter.value == b"13"
        said = {name: value.decode() for name, value in letter.headers}
        assert said["__streams.errors.topic"] == "numbers"
        assert said["__streams.errors.partition"] == "0"
        assert said["__streams.errors.offset"] == "1"
        assert said["__streams.errors.exception"] == "ArithmeticError"
        assert said["__headrace.agent"] == "add"
        assert said["__headrace.attempts"] == "3"
        assert not any("secret" in text or "13" in text for text in said.values())


def test_a_stopped_task_stops_alone_and_loses_nothing():
    """The other goes on; a restart with a better agent takes up where the stopped one was."""
    app, _, _ = adding(on_error="stop")
    with Driver(app, partitions=2) as driver:
        with pytest.raises(TaskStopped, match=r"task 0_0 is stopped: agent add raised Arith"):
            pipe(driver, 1, 13, 2)
        driver.broker.produce("numbers", b"k", b"5", 0, partition=1)
        driver.broker.produce("numbers", b"k", b"6", 0, partition=0)
        driver.settle()
        assert (out(driver), out(driver, 1)) == ([], [5])
        assert driver.broker.committed[TP("numbers", 0)].offset == 0
        engine = driver._engine
        assert b'headrace_tasks_parked{why="stopped"} 1.0' in engine.metrics.text()
        driver.crash()
        app.conf_fails = 0
        driver.restart()
        assert out(driver) == [1, 13, 2, 6]


def test_a_stopped_worker_tells_whoever_started_it():
    """How the worker ends says that a task was stopped."""
    app, _, _ = adding(on_error="stop")
    driver = Driver(app)
    with driver:
        with pytest.raises(TaskStopped):
            pipe(driver, 13)
        engine = driver._engine

        async def end():
            engine.stop()
            engine.open = nothing
            await engine.run()

        async def nothing():
            pass

        with pytest.raises(TaskStopped, match="restart the worker"):
            driver._run(end())
        driver._engine = None


def test_an_agent_that_fails_before_its_first_event_stops_its_task():
    """There is no event to blame."""
    app = App("early")
    numbers = app.topic("numbers", value_type=int)
    tries = []

    @app.agent(numbers, on_error=retry(2, backoff=1))
    async def early(stream):
        if type(stream).__name__ != "Probe":
            tries.append(1)
            raise ConnectionError
        async for _ in stream:
            pass

    with Driver(app) as driver:
        driver.advance(2)
        with pytest.raises(TaskStopped, match="no event in hand"):
            driver.advance(2)
    assert len(tries) == 3


@pytest.mark.parametrize("view", ["take", "take within", "batches"])
def test_of_several_events_in_hand_exactly_the_bad_one_is_blamed(view):
    """They come again one by one; nothing else becomes a dead letter, nothing comes twice."""
    app = App("chunks")
    numbers = app.topic("numbers", value_type=int, key_type=str)
    chunks = []

    @app.agent(numbers, sink=[app.topic("out", value_type=int)])
    async def add(stream):
        source = {
            "take": lambda: stream.take(4),
            "take within": lambda: stream.take(100, within=1),
            "batches": stream.batches,
        }[view]()
        async for chunk in source:
            chunks.append(list(chunk))
            if 13 in chunk or 26 in chunk:
                raise ArithmeticError
            yield sum(chunk)

    with Driver(app) as driver:
        pipe(driver, *range(32))
        driver.advance(2)
        assert [int(letter.value) for letter in driver.dead_letters("numbers")] == [13, 26]
        assert sum(out(driver)) == sum(range(32)) - 13 - 26
        verdicts = driver._engine.assignment.verdicts
        assert (verdicts.poison, verdicts.singly) == ({}, {})
        pipe(driver, *range(40, 48))
        driver.advance(2)
        assert len(chunks[-1]) > 1  # and then as before


def test_events_that_fail_only_together_pass_alone():
    """Nothing of them is lost."""
    app = App("together")
    numbers = app.topic("numbers", value_type=int, key_type=str)

    @app.agent(numbers, sink=[app.topic("out", value_type=int)], on_error="stop")
    async def add(stream):
        async for chunk in stream.take(3):
            if sum(chunk) > 100:
                raise OverflowError
            yield sum(chunk)

    with Driver(app) as driver:
        pipe(driver, 1, 2, 3, 60, 60, 60, 4, 5, 6)
        assert out(driver) == [6, 60, 60, 60, 15]
        assert driver.dead_letters("numbers") == []


def test_the_metrics_tell_how_a_worker_does():
    """What an operator looks at first: ready or not, ages, rebalances, producers, dead letters."""
    app, _, _ = adding(on_error=retry(1, backoff=30))
    with Driver(app, start_ms=1_000_000) as driver:
        pipe(driver, 1, 2)
        engine = driver._engine

        def metric(line):
            engine._health.look(engine.checkpoint, engine.assignment, now=True)
            return line.encode() in engine.metrics.text()

        assert engine.unready() == ""
        assert metric("headrace_ready 1.0")
        assert metric("headrace_rebalances_total 1.0")
        assert metric("headrace_last_commit_timestamp_seconds 1000.0")
        assert metric('headrace_position_age_seconds{task="0_0"} 0.0')
        assert metric('headrace_held_bytes{where="overlay"}')
        pipe(driver, 13)
        assert metric('headrace_tasks_parked{why="waiting"} 1.0')
        driver.advance(31)
        assert metric('headrace_dead_letters_total{topic="numbers"}')
        engine.checkpoint.last_ms -= 60_000
        assert "no commit for 60 s" in engine.unready()
        assert metric("headrace_ready 0.0")
