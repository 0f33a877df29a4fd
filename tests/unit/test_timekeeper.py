"""Timers and punctuators are called when it is time: in order, once, in the transaction."""

import asyncio

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import App, Contract
from engine.errors import ConfigError, TaskStopped
from engine.testing import Driver


class Order(msgspec.Struct):
    """An event: at a time, set or cancel a timer ``after`` so many ms."""

    at: int
    after: int = 0
    cancel: bool = False


def orders_of(app):
    contract = Contract.of("orders", Order, key_type=str, event_time="at")
    return app.topic("orders", contract=contract)


def alarm_app(*, again=0, cache_entries=100_000):
    """Each order sets or cancels a timer; what fires is written, and what the agent sees."""
    app = App("alarms")
    orders = orders_of(app)
    seen = app.topic("seen", value_type=list)
    alarms = app.Table("alarms", key_type=str, value_type=int, cache_entries=cache_entries)
    fired = app.Table("fired", default=int, key_type=str, value_type=int)

    @alarms.timer
    async def fire(key, time):
        fired[key] = fired[key] + 1
        await asyncio.sleep(0)
        await seen.send(key=key, value=["fired", key, time, fired[key]])
        if again and fired[key] % 2:
            alarms.at(time + again, key)

    @app.agent(orders, sink=[seen])
    async def watch(stream):
        async for key, order in stream.items():
            if order.cancel:
                alarms.cancel(order.at + order.after, key)
            else:
                alarms.at(order.at + order.after, key)
            yield ["event", key, order.at, 0]

    return app


class Brute:
    """A sorted list of timers, looked at after every event."""

    def __init__(self, again):
        self.now, self.again = -1, again
        self.timers, self.rows, self.fired = set(), [], {}

    def feed(self, key, order):
        timer = (order.at + order.after, key.encode(), key)
        if order.cancel:
            self.timers.discard(timer)
        else:
            self.timers.add(timer)
        self.rows.append(["event", key, order.at, 0])
        self.now = max(self.now, order.at)
        while self.timers and min(self.timers)[0] <= self.now:
            time, raw, key = min(self.timers)
            self.timers.remove((time, raw, key))
            self.fired[key] = self.fired.get(key, 0) + 1
            self.rows.append(["fired", key, time, self.fired[key]])
            if self.again and self.fired[key] % 2:
                self.timers.add((time + self.again, raw, key))


def rows_of(driver):
    return [each.value for each in driver.read("seen")]


def cancelling(steps):
    """Each second event takes back a timer that an earlier one has set, if it has not fired."""
    rows, timers = [], []
    for key, at, after in steps:
        if len(rows) % 2 and timers:
            whose, time = timers[at % len(timers)]
            rows.append((whose, Order(at, time - at, cancel=True)))
        else:
            timers.append((key, at + after))
            rows.append((key, Order(at, after)))
    return rows


events = st.lists(
    st.tuples(st.sampled_from(["a", "b", "é"]), st.integers(0, 12), st.integers(-2, 5)),
    max_size=14,
).map(cancelling)


@given(events, st.sampled_from([0, 3]), st.sampled_from(["one by one", "at once", "crashes"]))
@settings(max_examples=60, deadline=None)
def test_a_timer_fires_after_the_event_that_reaches_it_and_before_the_next(events, again, how):
    """Also in the middle of a batch, and after a crash between the event and the timer."""
    brute = Brute(again)
    for event in events:
        brute.feed(*event)
    with Driver(alarm_app(again=again, cache_entries=1)) as driver:
        if how == "at once":
            driver.pipe_many("orders", [(key, order, order.at) for key, order in events])
        for number, (key, order) in enumerate(events if how != "at once" else ()):
            driver.pipe("orders", key=key, value=order)
            if how == "crashes" and number % 2:
                driver.crash()
                driver.restart()
        assert rows_of(driver) == brute.rows
        assert {(time, key) for time, key in driver.table("alarms-timers")} == {
            (time, raw) for time, raw, _ in brute.timers
        }


def test_timers_come_back_from_their_changelog_alone():
    with Driver(alarm_app()) as driver:
        for number in range(5):
            driver.pipe("orders", key=f"k{number}", value=Order(0, 10 + number))
        driver.pipe("orders", key="k2", value=Order(1, 11, cancel=True))
        driver.crash()
        driver.broker.stores.clear()
        driver.restart()
        driver.pipe("orders", key="x", value=Order(13, 100))
        assert [row[1:3] for row in rows_of(driver) if row[0] == "fired"] == [
            ["k0", 10], ["k1", 11], ["k3", 13],
        ]  # fmt: skip


def test_what_is_sent_and_changed_carries_the_time_of_the_timer():
    app = App("times")
    orders, out = orders_of(app), app.topic("out")
    alarms = app.Table("alarms", key_type=str)
    counts = app.Table("counts", default=int, key_type=str, value_type=int).tumbling(
        0.01, grace=1, sink=app.topic("minutes"), emit="updates"
    )

    @alarms.timer
    async def fire(key, time):
        counts[key] += 1
        await out.send(key=key, value=time)

    @app.agent(orders)
    async def watch(stream):
        async for key, order in stream.items():
            alarms.at(order.at + order.after, key)

    with Driver(app) as driver:
        driver.pipe("orders", key="k", value=Order(5, 10))
        driver.pipe("orders", key="k", value=Order(400, 1000))
        assert [(each.value, each.timestamp) for each in driver.read("out")] == [(15, 15)]
        assert driver.table("counts") == [("k", 10, 20, 1)]
        assert [each.timestamp for each in driver.read("minutes")] == [15]


def test_a_timer_function_that_raises_stops_its_task_and_says_where():
    app = App("bad")
    orders = orders_of(app)
    alarms = app.Table("alarms", key_type=str)

    @alarms.timer
    def fire(key, time):
        raise ValueError(key)

    @app.agent(orders)
    async def watch(stream):
        async for key, order in stream.items():
            alarms.at(order.at + order.after, key)

    with Driver(app) as driver:
        with pytest.raises(TaskStopped, match="alarms-timers raised ValueError on its call for 5"):
            driver.pipe("orders", key="k", value=Order(5, 0))
        assert not driver.dead_letters("orders")


def test_each_agent_has_a_clock_of_its_own():
    """Another agent's events, further on in the batch, do not let a timer fire early."""
    app = App("two")
    orders, seen = orders_of(app), app.topic("seen", value_type=list)
    alarms = app.Table("alarms", key_type=str)

    @app.agent(orders)
    async def other(stream):
        async for _ in stream:
            pass

    @alarms.timer
    async def fire(key, time):
        await seen.send(value=["fired", key, time])

    @app.agent(orders, sink=[seen])
    async def watch(stream):
        async for key, order in stream.items():
            alarms.at(order.at + order.after, key)
            yield ["event", key, order.at]

    rows = [("a", Order(0, 10)), ("b", Order(5, 10)), ("c", Order(30, 10)), ("d", Order(31, 10))]
    with Driver(app) as driver:
        driver.pipe_many("orders", [(key, order, order.at) for key, order in rows])
        assert rows_of(driver) == [
            ["event", "a", 0], ["event", "b", 5], ["event", "c", 30],
            ["fired", "a", 10], ["fired", "b", 15], ["event", "d", 31],
        ]  # fmt: skip


@pytest.mark.parametrize("crash", [False, True])
def test_a_commit_between_an_event_and_its_timer_loses_and_doubles_nothing(crash):
    """One agent stands still for the timer, another is in the middle of an event; then a cut."""
    app = App("between")
    orders, seen = orders_of(app), app.topic("seen", value_type=list)
    alarms = app.Table("alarms", key_type=str)
    gate = asyncio.Event()

    @alarms.timer
    async def fire(key, time):
        await seen.send(value=["fired", key, time])

    @app.agent(orders, sink=[seen])
    async def watch(stream):
        async for key, order in stream.items():
            alarms.at(order.at + order.after, key)
            yield ["event", key, order.at]

    @app.agent(orders)
    async def slow(stream):
        async for _ in stream:
            await gate.wait()

    async def until_cut(driver):
        engine = driver._engine
        for number in range(3):
            raw = orders.encode_value(Order(number, 0 if number == 0 else 100))
            driver.broker.produce("orders", b"k", raw, number, (), None)
        for _ in range(5):
            await engine.step()
        commit = asyncio.create_task(engine.commit_now(5))
        await asyncio.sleep(0.01)
        gate.set()
        assert await commit

    with Driver(app) as driver:
        driver._run(until_cut(driver))
        assert [each.value for each in driver.read("seen")] == [["event", "k", 0]]
        if crash:
            driver.crash()
            driver.restart()
        driver.settle()
        rows = [each.value for each in driver.read("seen")]
        assert rows == [["fired", "k", 0], ["event", "k", 1], ["event", "k", 2]]


def test_an_agent_goes_on_with_its_own_event_after_a_timer():
    """In the middle of a batch: its windows go by the event, and not by what has just fired."""
    app = App("own")
    orders = orders_of(app)
    alarms = app.Table("alarms", key_type=str)
    counts = app.Table("counts", default=int, key_type=str, value_type=int).tumbling(0.01, grace=1)

    @alarms.timer
    def fire(key, time):
        pass

    @app.agent(orders)
    async def watch(stream):
        async for key, order in stream.items():
            alarms.at(order.at, key)
            counts[key] += 1

    with Driver(app) as driver:
        driver.pipe_many("orders", [("k", Order(at), at) for at in (5, 15, 25)])
        assert driver.table("counts") == [("k", 0, 10, 1), ("k", 10, 20, 1), ("k", 20, 30, 1)]


@pytest.mark.parametrize("at_once", [False, True])
def test_what_is_due_of_several_tables_and_punctuators_comes_by_time(at_once):
    app = App("several")
    orders, seen = orders_of(app), app.topic("seen", value_type=list)
    tables = [app.Table(name, key_type=str) for name in ("b", "a")]

    for table in tables:

        @table.timer
        async def fire(key, time, name=table.name):
            await seen.send(value=[name, key, time])

    @app.punctuate(orders, stream_time=0.01)
    async def tick(time):
        await seen.send(value=["tick", time])

    @app.agent(orders, tables=tables)
    async def watch(stream):
        async for key, order in stream.items():
            tables[order.after % 2].at(order.at + order.after, key)

    rows = [("x", Order(1, 15)), ("y", Order(2, 7)), ("z", Order(3, 8)), ("z", Order(30, 50))]
    with Driver(app) as driver:
        if at_once:
            driver.pipe_many("orders", [(key, order, order.at) for key, order in rows])
        for key, order in [] if at_once else rows:
            driver.pipe("orders", key=key, value=order)
        assert rows_of(driver) == [
            ["tick", 1], ["a", "y", 9], ["tick", 30], ["b", "z", 11], ["a", "x", 16]
        ]  # fmt: skip


# --- punctuators ------------------------------------------------------------------------------


def punctuated(**when):
    app = App("punctuated")
    orders, out = orders_of(app), app.topic("out", value_type=list)
    counts = app.Table("counts", default=int, key_type=str, value_type=int)

    @app.punctuate(**when)
    async def report(time):
        await out.send(value=[time, counts["n"]])
        counts["reports"] += 1

    @app.agent(orders)
    async def count(stream):
        async for _ in stream:
            counts["n"] += 1

    return app


@pytest.mark.parametrize("how", ["one by one", "at once", "crashes"])
def test_by_stream_time_it_is_called_once_for_each_interval_that_has_events(how):
    """First with the first event; a jump over several intervals is one call: as Kafka Streams."""
    times = [3, 4, 9, 10, 12, 11, 45, 49, 50]
    with Driver(punctuated(stream_time=0.01)) as driver:
        if how == "at once":
            driver.pipe_many("orders", [("k", Order(at), at) for at in times])
        for at in times if how != "at once" else ():
            driver.pipe("orders", key="k", value=Order(at))
            if how == "crashes":
                driver.crash()
                driver.restart()
        assert [each.value for each in driver.read("out")] == [[3, 1], [10, 4], [45, 7], [50, 9]]
        assert dict(driver.table("counts")) == {"n": 9, "reports": 4}


def test_by_the_wall_clock_it_is_called_without_any_event():
    with Driver(punctuated(wall_clock=60), start_ms=1_000) as driver:
        driver.advance(59)
        assert driver.read("out") == []
        driver.advance(1)
        driver.pipe("orders", key="k", value=Order(5))
        driver.advance(60)
        assert [each.value for each in driver.read("out")] == [[61_000, 0], [121_000, 1]]
        driver.crash()
        driver.restart()
        assert dict(driver.table("counts")) == {"n": 1, "reports": 2}
        driver.advance(60)
        assert [each.value for each in driver.read("out")] == [[181_000, 1]]


class Watched:
    """An outlet that remembers what went through it."""

    def __init__(self, outlet, sent):
        self._outlet, self._sent = outlet, sent

    def __getattr__(self, name):
        return getattr(self._outlet, name)

    async def commit(self, transaction):
        self._sent.append(transaction)
        return await self._outlet.commit(transaction)


def test_a_commit_without_events_is_fenced_all_the_same():
    """Who may commit is told by positions: a worker that has lost its task must not send."""
    sent = []
    driver = Driver(punctuated(wall_clock=60))
    driver.wrap = lambda edges: edges._replace(outlet=Watched(edges.outlet, sent))
    with driver:
        driver.advance(180)
        assert len(driver.read("out")) == 3
    assert sum(bool(each.rows) for each in sent) == 3
    assert all(each.positions for each in sent)


def test_each_task_calls_it_for_itself():
    with Driver(punctuated(wall_clock=60), partitions=3) as driver:
        driver.advance(60)
        assert len(driver.read("out")) == 3


def test_a_channel_says_where_to_call_one_that_uses_no_table():
    app = App("beats")
    orders, out = orders_of(app), app.topic("out")

    @app.punctuate(orders, stream_time=1)
    async def beat(time):
        await out.send(value=time)

    @app.agent(orders)
    async def ignore(stream):
        async for _ in stream.batches():
            pass

    with Driver(app) as driver:
        driver.pipe_many("orders", [("k", Order(at), at) for at in (5, 1_500, 1_600)])
        assert [each.value for each in driver.read("out")] == [1_600]


@pytest.mark.parametrize(
    "when", [{}, {"stream_time": 1, "wall_clock": 1}, {"stream_time": 0}, {"wall_clock": -5}]
)
def test_a_punctuator_has_one_interval(when):
    with pytest.raises(ConfigError, match="punctuator"):
        punctuated(**when)


def test_functions_of_the_wrong_form_are_refused_at_once():
    app = App("forms")
    with pytest.raises(ConfigError, match="takes the time"):
        app.punctuate(stream_time=1)(lambda: None)
    with pytest.raises(ConfigError, match="a key and a time"):
        app.Table("t").timer(lambda key: None)
    with pytest.raises(ConfigError, match="no function for timers"):
        app.Table("u").at(5, "k")


def test_a_punctuator_without_a_home_is_refused_at_the_start():
    app = punctuated(stream_time=1)
    app.punctuate(wall_clock="1s")(lambda time: None)
    with pytest.raises(ConfigError, match="needs tables or a topic"):
        app.topology()
