"""map_async and map_cpu: in order, bounded, each event its own, and nothing done that is not."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from functools import partial
from itertools import accumulate
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import App, cpu, retry
from engine.errors import ConfigError
from engine.testing import Driver
from tests.unit import arithmetic

ROOT = Path(__file__).parents[2]


class Order(msgspec.Struct):
    amount: int


def make(view, **options):
    """Return an app whose agent yields what a view of its stream does."""
    app = App("ahead")
    topic = app.topic("orders", value_type=Order, key_type=str)
    out = app.topic("out", value_type=None, key_type=str)

    @app.agent(topic, sink=[out], **options)
    async def work(stream):
        async for value in view(stream):
            yield value

    return app, topic, out


def orders(*amounts):
    return [(f"k{amount}", Order(amount), amount) for amount in amounts]


def seen(driver, out):
    return [row.value for row in driver.read(out)]


# --- map_async -----------------------------------------------------------------------------------


class Calls:
    """A coroutine function whose calls end in any order."""

    def __init__(self):
        self.running = self.most = self.count = 0

    async def __call__(self, order):
        self.count += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep((order.amount * 7 % 5) / 1000)
        finally:
            self.running -= 1
        return order.amount * 10


def test_calls_run_together_and_results_keep_their_order_key_and_time():
    calls = Calls()
    app, topic, out = make(lambda stream: stream.map_async(calls, concurrency=8))
    with Driver(app) as driver:
        driver.pipe_many(topic, orders(*range(50)))
        rows = driver.read(out)
    assert [(row.key, row.value, row.timestamp) for row in rows] == [
        (f"k{n}", n * 10, n) for n in range(50)
    ]
    assert calls.most == 8
    assert calls.count == 50


def test_views_may_stand_before_and_after():
    app = App("stacked")
    topic = app.topic("orders", value_type=Order)
    out = app.topic("out", value_type=None)
    calls = Calls()

    async def negate(number):
        await asyncio.sleep(0)
        return -number

    @app.agent(topic, sink=[out])
    async def work(stream):
        even = stream.filter(lambda order: order.amount % 2 == 0)
        mapped = even.map_async(calls, concurrency=3).map_async(negate).enumerate()
        async for pair in mapped.filter(lambda pair: pair[0] != 2):
            assert stream.current_event.value.amount * -10 == pair[1]
            yield pair

    with Driver(app) as driver:
        driver.pipe_many(topic, orders(*range(12)))
        assert seen(driver, out) == [[0, 0], [1, -20], [3, -60], [4, -80], [5, -100]]


def test_a_move_may_follow():
    app = App("moved")
    topic = app.topic("orders", value_type=Order, key_type=str)
    out = app.topic("out", value_type=None)

    async def lower(order):
        await asyncio.sleep(0)
        return order

    @app.agent(topic, sink=[out])
    async def work(stream):
        async for key, order in stream.map_async(lower).group_by("amount", name="amount").items():
            yield [key, order.amount]

    with Driver(app, partitions=3) as driver:
        driver.pipe_many(topic, orders(1, 2, 3))
        assert sorted(seen(driver, out)) == [[1, 1], [2, 2], [3, 3]]


def test_take_follows_and_keeps_its_deadline():
    calls = Calls()
    app, topic, out = make(lambda stream: stream.map_async(calls).take(3, within=5))
    with Driver(app) as driver:
        driver.pipe_many(topic, orders(1, 2, 3, 4))
        assert seen(driver, out) == [[10, 20, 30]]
        driver.crash()
        driver.restart()
        driver.advance(4)
        assert seen(driver, out) == []
        driver.pipe_many(topic, orders(5))
        assert seen(driver, out) == []
        driver.advance(1.5)
        assert seen(driver, out) == [[40, 50]]


def test_an_exception_is_its_own_events():
    async def check(order):
        await asyncio.sleep(0)
        if order.amount == 4:
            raise ValueError("four")
        return order.amount

    app, topic, out = make(lambda stream: stream.map_async(check))
    with Driver(app) as driver:
        driver.pipe_many(topic, orders(*range(8)))
        assert seen(driver, out) == [0, 1, 2, 3, 5, 6, 7]
        [letter] = driver.dead_letters(topic)
        assert letter.header("__streams.errors.exception") == "ValueError"
        assert letter.header("__streams.errors.offset") == "4"


def test_a_call_is_tried_again_as_the_policy_says():
    tries = []

    async def fail_twice(order):
        tries.append(order.amount)
        if order.amount == 1 and tries.count(1) < 3:
            raise OSError("away")
        return order.amount

    app, topic, out = make(lambda stream: stream.map_async(fail_twice), on_error=retry(2))
    with Driver(app) as driver:
        driver.pipe_many(topic, orders(0, 1, 2))
        assert seen(driver, out) == [0, 1, 2]
        assert driver.dead_letters(topic) == []
    assert tries.count(1) == 3


def test_a_call_that_takes_too_long_is_an_exception_of_its_event():
    async def hang(order):
        await asyncio.sleep(60 if order.amount == 2 else 0)
        return order.amount

    app, topic, out = make(lambda stream: stream.map_async(hang, timeout=0.05))
    with Driver(app) as driver:
        driver.pipe_many(topic, orders(1, 2, 3))
        assert seen(driver, out) == [1, 3]
        [letter] = driver.dead_letters(topic)
        assert letter.header("__streams.errors.exception") == "TimeoutError"


def test_a_call_that_cancels_itself_does_not_end_the_agent():
    async def cancelled(order):
        if order.amount == 2:
            asyncio.current_task().cancel()
        await asyncio.sleep(0)
        return order.amount

    app, topic, out = make(lambda stream: stream.map_async(cancelled))
    with Driver(app) as driver:
        driver.pipe_many(topic, orders(1, 2, 3))
        assert seen(driver, out) == [1, 3]


def test_a_call_has_no_tables():
    """It runs beside the agent, which may be elsewhere by then."""
    app = App("tables")
    topic = app.topic("orders", value_type=Order)
    counts = app.Table("counts", default=int)

    async def count(order):
        counts[order.amount] += 1

    @app.agent(topic, tables=[counts])
    async def work(stream):
        async for _ in stream.map_async(count):
            pass

    with Driver(app) as driver:
        driver.pipe_many(topic, orders(1))
        [letter] = driver.dead_letters(topic)
        assert letter.header("__streams.errors.exception") == "ContextError"


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


def test_a_commit_is_cut_while_a_result_is_waited_for():
    """Those before it are committed; it, and what was called for ahead of it, come again."""
    gate, called = [], []

    async def wait_at_3(order):
        called.append(order.amount)
        if order.amount == 3:
            await gate[0].wait()
        return order.amount

    app, _, out = make(lambda stream: stream.map_async(wait_at_3, concurrency=4))

    async def work(driver):
        gate.append(asyncio.Event())
        for row in orders(*range(10)):
            driver.broker.produce("orders", row[0].encode(), b'{"amount":%d}' % row[1].amount, 0)
        engine = driver._engine
        await engine.step()
        await until(lambda: len(called) == 7)
        assert await engine.commit_now(5)
        assert [record[1] for record in driver.raw("out")] == [b"0", b"1", b"2"]

    with Driver(app) as driver:
        driver._run(work(driver))
        driver.crash()
        gate[0] = asyncio.Event()
        gate[0].set()
        called.clear()
        driver.restart()
        driver.settle()
        assert seen(driver, out) == list(range(10))
        assert called == list(range(3, 10))


def test_what_is_under_way_is_cancelled_with_its_task():
    cancelled, called = [], []

    async def hang(order):
        called.append(order.amount)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(order.amount)
            raise

    app, _, _ = make(lambda stream: stream.map_async(hang, concurrency=3, timeout=100))

    async def work(driver):
        for _ in range(5):
            driver.broker.produce("orders", None, b'{"amount":1}', 0)
        await driver._engine.step()
        await until(lambda: len(called) == 3)

    with Driver(app) as driver:
        driver._run(work(driver))
        driver.crash()
        assert cancelled == [1, 1, 1]
        driver._run(work_off(driver))


async def work_off(driver):
    """Let the with statement end a worker whose calls would never end."""
    driver.broker.logs.clear()
    driver.broker.create("orders")


@pytest.mark.parametrize("taken", [1, 3])
def test_an_agent_may_leave_its_loop(taken):
    calls = Calls()
    app = App("leaving")
    topic = app.topic("orders", value_type=Order)
    out = app.topic("out", value_type=int)

    @app.agent(topic, sink=[out])
    async def leave(stream):
        count = 0
        async for number in stream.map_async(calls, concurrency=4):
            yield number
            count += 1
            if count == taken:
                return

    with Driver(app) as driver:
        driver.pipe_many(topic, orders(*range(10)))
        assert seen(driver, out) == [n * 10 for n in range(10)]
        driver.crash()
        driver.restart()
        assert seen(driver, out) == []


def test_an_agent_may_go_on_without_the_view():
    calls = Calls()
    app = App("leaving")
    topic = app.topic("orders", value_type=Order)
    out = app.topic("out", value_type=int)

    @app.agent(topic, sink=[out])
    async def leave(stream):
        async for number in stream.map_async(calls, concurrency=4):
            yield number
            break
        async for order in stream:
            yield order.amount

    with Driver(app) as driver:
        driver.pipe_many(topic, orders(*range(1, 6)))
        driver.pipe_many(topic, orders(6))
        assert seen(driver, out) == [10, 2, 3, 4, 5, 6]
        driver.crash()
        driver.restart()
        assert seen(driver, out) == []


def summing(doomed, concurrency):
    """Return an app that adds up what it is called for; some calls fail at first."""
    app = App("any")
    topic = app.topic("orders", value_type=Order)
    out = app.topic("out", value_type=None)
    sums = app.Table("sums", default=int)
    failed = set()

    async def call(order):
        for _ in range(order.amount * 13 % 4):
            await asyncio.sleep(0)
        if order.amount in doomed and order.amount not in failed:
            failed.add(order.amount)
            raise OSError(order.amount)
        return order.amount

    @app.agent(topic, sink=[out], tables=[sums], on_error=retry(3))
    async def work(stream):
        async for amount in stream.map_async(call, concurrency=concurrency):
            sums["all"] += amount
            if amount % 3 == 0:
                await asyncio.sleep(0)
            yield [amount, sums["all"]]

    return app, out


async def steps(driver, count):
    for _ in range(count):
        await driver._engine.step()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_whatever_happens_each_event_has_its_effect_once(data):
    """Commits, crashes and exceptions at any moment, with a table that counts."""
    doomed = data.draw(st.sets(st.integers(0, 30), max_size=2))
    app, out = summing(doomed, data.draw(st.integers(1, 6)))
    amounts = list(range(30))
    with Driver(app, inbox_records=10, commit_interval_ms=1) as driver:
        while amounts:
            for _ in range(data.draw(st.integers(0, 12))):
                if amounts:
                    driver.broker.produce("orders", None, b'{"amount":%d}' % amounts.pop(0), 0)
            driver._run(steps(driver, data.draw(st.integers(1, 4))))
            match data.draw(st.sampled_from(("go on", "commit", "crash"))):
                case "commit":
                    driver._run(driver._engine.commit_now(0.01))
                case "crash":
                    driver.crash()
                    driver.restart()
        driver.settle()
        sums = list(accumulate(range(30)))
        assert seen(driver, out) == [[amount, sums[amount]] for amount in range(30)]


# --- map_cpu -------------------------------------------------------------------------------------


def test_other_processes_do_the_work():
    app, topic, out = make(lambda stream: stream.map_cpu(arithmetic.pid, workers=2))
    with Driver(app) as driver:
        driver.pipe_many(topic, orders(*range(60)))
        driver.pipe_many(topic, orders(*range(60)))
        pids = set(seen(driver, out))
        assert len(pids) == 2
        assert os.getpid() not in pids
    for pid in pids:  # they end with the app
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert cpu._pools == {}


def test_results_keep_their_order_and_errors_their_event():
    app, topic, out = make(lambda stream: stream.map_cpu(arithmetic.refuse_13, workers=2))
    with Driver(app) as driver:
        driver.pipe_many(topic, orders(*range(40)))
        assert seen(driver, out) == [*range(13), *range(17, 40)]
        letters = driver.dead_letters(topic)
        assert [letter.header("__streams.errors.exception") for letter in letters] == [
            "ValueError", "RuntimeError", "TypeError", "RuntimeError",
        ]  # fmt: skip


def test_an_event_that_kills_its_process_is_found_and_no_other():
    app, topic, out = make(lambda stream: stream.map_cpu(arithmetic.die_on_13, workers=2))
    with Driver(app) as driver:
        driver.pipe_many(topic, orders(*range(20)))
        assert seen(driver, out) == [*range(13), *range(14, 20)]
        [letter] = driver.dead_letters(topic)
        assert letter.header("__streams.errors.exception") == "ProcessDied"


def test_a_process_that_dies_once_costs_nothing_but_time(tmp_path):
    fn = partial(arithmetic.die_once, str(tmp_path / "died"))
    app, topic, out = make(lambda stream: stream.map_cpu(fn, workers=2))
    with Driver(app) as driver:
        driver.pipe_many(topic, orders(*range(20)))
        assert seen(driver, out) == list(range(20))
        assert driver.dead_letters(topic) == []
    assert (tmp_path / "died").exists()


def test_processes_end_with_the_one_that_they_work_for(tmp_path):
    """Also where it is killed, and they are in the middle of something."""
    code = """
import asyncio, sys
from engine import cpu
from tests.unit import arithmetic
from tests.unit.test_ahead import Order
async def main():
    calls = cpu.CpuCalls(arithmetic.pid, 2)
    [one], _ = await calls.start([Order(1)])
    print(one, flush=True)
    await cpu.CpuCalls(arithmetic.nap, 2).start([Order(600_000)])
if __name__ == "__main__":
    asyncio.run(main())
"""
    script = tmp_path / "holder.py"
    script.write_text(code)
    holder = subprocess.Popen(
        [sys.executable, script], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
    )  # fmt: skip
    worker = int(holder.stdout.readline())
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and alive(worker):
        time.sleep(0.02)
    assert not alive(worker)


def alive(pid):
    with contextlib.suppress(OSError):
        return b") Z " not in Path(f"/proc/{pid}/stat").read_bytes()
    return False


def closure():
    def inner(order):
        return order

    return inner


@pytest.mark.parametrize(
    ("fn", "name"),
    [
        (lambda order: order, "<lambda>"),
        (closure(), "inner"),
        (arithmetic.Scorer().score, "score"),
        (partial(lambda order: order), "<lambda>"),
        (arithmetic.co, "co"),
        ("double", "double"),
    ],
)
def test_a_function_that_others_cannot_find_is_refused_where_it_is_declared(fn, name):
    app, _, _ = make(lambda stream: stream.map_cpu(fn, workers=2))
    with pytest.raises(ConfigError, match=r"map_cpu\(") as caught:
        app.topology()
    assert name in str(caught.value)


def test_a_plain_function_is_no_coroutine_function():
    app, _, _ = make(lambda stream: stream.map_async(arithmetic.double))
    with pytest.raises(ConfigError, match="async def"):
        app.topology()


@pytest.mark.parametrize(
    "view",
    [
        lambda stream: stream.map_async(arithmetic.co, concurrency=0),
        lambda stream: stream.map_async(arithmetic.co, timeout=0),
        lambda stream: stream.map_cpu(arithmetic.double, workers=1000),
        lambda stream: stream.map_cpu(arithmetic.double, workers=-1),
        lambda stream: stream.take(3).map_async(arithmetic.co),
        lambda stream: stream.take(3).map_cpu(arithmetic.double),
    ],
)
def test_what_cannot_work_is_refused(view):
    app, _, _ = make(view)
    with pytest.raises(ConfigError):
        app.topology()


def test_chunks_follow_what_an_event_costs():
    calls = cpu.CpuCalls(arithmetic.double, 2)

    async def sizes():
        pool = cpu._pool(2)
        assert calls.size(1000) == 1  # nobody knows yet
        pool.cost_ms[arithmetic.double] = 1.0
        assert calls.size(1000) == 20
        assert calls.size(10) == 5
        pool.cost_ms[arithmetic.double] = 0.0
        assert calls.size(10_000) == cpu.CHUNK_MAX
        pool.cost_ms[arithmetic.double] = 1e6
        assert calls.size(1000) == 1
        await cpu.close()

    asyncio.run(sizes())
