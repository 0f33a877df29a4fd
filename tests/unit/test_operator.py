"""Operators: what stands between a stream and an agent, on the true engine."""

import operator

import msgspec
import pytest

from engine import App
from engine.errors import ConfigError
from engine.operator import Operator
from engine.record import TP
from engine.task import END_MARK
from engine.testing import Driver
from tables.codec import value_codec
from tables.operator import Result
from tables.table import KeyedPartition


class Number(msgspec.Struct):
    value: int


class SumPartition(KeyedPartition):
    """Sums of what came by key; each is told of once the key's sum is a multiple of ten."""

    def __init__(self, name, store):
        super().__init__(name, store, key=value_codec(bytes), value=value_codec(int))
        self.stream_time = 0

    def bind(self, tables):
        self.names = sorted(tables)

    def step(self, side, key, ts, value):
        total = self.get(key, 0) + (-1 if side else 1) * value.value
        self.put(key, total)
        return [Result(b"all", ts + 1, f"{key.decode()}{total}")] if total % 10 == 0 else []

    def close_all(self):
        rows = list(self.items())
        for key, _ in rows:
            self.delete(key)
        return [Result(key, 99, f"end {key.decode()}{total}") for key, total in rows]


class Sums(Operator):
    def open(self, store, emit):
        return SumPartition(self.name, store)


def declared(view, **options):
    app = App("operators")
    plus = app.topic("plus", value_type=Number, key_type=str, partitions=1)
    minus = app.topic("minus", value_type=Number, key_type=str, partitions=1)
    out = app.topic("out", value_type=str, key_type=str, partitions=1)

    if view == "channel":
        sums = Sums("sums", [plus, minus])
        app.declare(sums)

        @app.agent(sums, sink=[out], **options)
        async def tell(stream):
            async for key, text in stream.items():
                if "bad" in text:
                    raise ValueError(text)
                yield f"{key} {text}"
    else:

        @app.agent(plus, sink=[out], **options)
        async def tell(stream):
            sums = stream._operate("sums", lambda name, own: Sums(name, [own, minus]))
            async for key, text in sums.items():
                if "bad" in text:
                    raise ValueError(text)
                yield f"{key} {text}"

    return app


def rows(driver):
    return [(each.key, each.value, each.timestamp) for each in driver.read("out")]


@pytest.mark.parametrize("view", ["channel", "view"])
def test_results_come_with_their_own_key_and_time(view):
    with Driver(declared(view)) as driver:
        driver.pipe("plus", key="a", value=Number(7), timestamp=1)
        driver.pipe("plus", key="a", value=Number(3), timestamp=5)
        driver.pipe("minus", key="a", value=Number(10), timestamp=6)
        assert rows(driver) == [("all", "all a10", 6), ("all", "all a0", 7)]


@pytest.mark.parametrize("view", ["channel", "view"])
@pytest.mark.parametrize("keep", [True, False])
def test_state_outlives_a_worker(view, keep):
    with Driver(declared(view)) as driver:
        driver.pipe("plus", key="a", value=Number(7), timestamp=1)
        driver.crash()
        if not keep:
            driver.broker.stores.clear()
        driver.restart()
        driver.pipe("plus", key="a", value=Number(3), timestamp=5)
        assert rows(driver) == [("all", "all a10", 6)]


def test_the_end_of_all_inputs_closes_it():
    with Driver(declared("channel")) as driver:
        driver.pipe("plus", key="a", value=Number(7), timestamp=1)
        driver.pipe("minus", key="b", value=Number(3), timestamp=5)
        for topic in ("plus", "minus"):
            assert rows(driver) == []  # one of them has more to come
            driver.broker.append(TP(topic, 0), (None, None, 0, ((END_MARK, b""),)))
            driver.settle()
        assert rows(driver) == [("a", "a end a7", 99), ("b", "b end b-3", 99)]


def test_an_event_on_whose_result_the_agent_fails_counts_all_the_same():
    with Driver(declared("view")) as driver:
        driver.pipe("plus", key="bad", value=Number(10), timestamp=1)
        assert [each.key for each in driver.dead_letters("plus")] == [b"bad"]
        driver.pipe("plus", key="bad", value=Number(1), timestamp=2)
        driver.pipe("plus", key="a", value=Number(20), timestamp=3)
        assert rows(driver) == [("all", "all a20", 4)]
        assert dict(driver.table("tell-sums")) == {b"bad": 11, b"a": 20}


@pytest.mark.parametrize(
    "late",
    [
        lambda stream, make: stream._operate("one", make)._operate("two", make),
        lambda stream, make: stream.map(str)._operate("one", make),
        lambda stream, make: stream.take(3)._operate("one", make),
        lambda stream, make: stream._operate("one", make).take(3),
        lambda stream, make: stream._operate("one", make).map_cpu(operator.neg),
    ],
)
def test_what_an_operator_cannot_stand_beside_is_refused_at_the_start(late):
    app = App("refused")
    plus = app.topic("plus", value_type=Number, key_type=str, partitions=1)

    @app.agent(plus)
    async def work(stream):
        async for _ in late(stream, lambda name, own: Sums(name, [own])):
            pass

    with pytest.raises(ConfigError):
        app.topology()


def test_two_of_one_name_are_refused():
    app = App("twice")
    plus = app.topic("plus", value_type=Number, key_type=str, partitions=1)
    app.Table("work-sums")

    @app.agent(plus, tables=list(app.declared_tables.values()))
    async def work(stream):
        async for _ in stream._operate("sums", lambda name, own: Sums(name, [own])):
            pass

    with pytest.raises(ConfigError, match="two tables or operators named 'work-sums'"):
        app.topology()


def test_a_topic_is_not_joined_with_itself():
    app = App("self")
    plus = app.topic("plus", value_type=Number)
    with pytest.raises(ConfigError, match="use two topics"):
        Sums("sums", [plus, plus])
