"""Lookups in something outside: cached, shared, in order, and every error its own event's."""

import asyncio

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import App, retry
from engine.errors import ConfigError
from engine.lookup import Answers
from engine.testing import Driver
from engine.testing.memory import HandClock


class Order(msgspec.Struct):
    product: str | None
    amount: int = 0


class Service:
    """Knows the price of a product: its name's length; a call takes as long."""

    def __init__(self):
        self.calls = []
        self.running = self.most = 0
        self.failing = set()
        self.hanging = set()

    async def __call__(self, product):
        self.calls.append(product)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(len(product) / 1000)
            if product in self.hanging:
                await asyncio.sleep(60)
        finally:
            self.running -= 1
        if product in self.failing:
            raise LookupError(product)
        return None if product == "unknown" else len(product)


def declared(service, agent=None, **options):
    app = App("asking")
    topic = app.topic("orders", value_type=Order, key_type=str, compacting=True)
    out = app.topic("out", value_type=None, key_type=str)

    @app.agent(topic, sink=[out], **(agent or {}))
    async def work(stream):
        async for order, price in stream.lookup(service, **{"on": "product", **options}):
            yield [order.product, order.amount, price]

    return app


def pipe(driver, *products):
    driver.pipe_many("orders", [(f"k{n}", Order(p, n), n) for n, p in enumerate(products)])


def seen(driver):
    return [each.value for each in driver.read("out")]


def test_pairs_come_in_order_with_their_own_key_and_time_though_calls_overlap():
    service = Service()
    with Driver(declared(service, concurrency=4)) as driver:
        products = ["aaaaaaa", "b", "cccc", "dd", "e", "ffffff", "g"]
        pipe(driver, *products)
        rows = [(each.key, each.value, each.timestamp) for each in driver.read("out")]
    assert rows == [(f"k{n}", [p, n, len(p)], n) for n, p in enumerate(products)]
    assert 1 < service.most <= 4


def test_equal_keys_share_a_call_and_later_ones_find_its_answer():
    service = Service()
    with Driver(declared(service)) as driver:
        pipe(driver, *["aa", "b", "aa", "aa", "unknown", "unknown"])
        pipe(driver, "aa", "unknown")
        assert [price for _, _, price in seen(driver)] == [2, 1, 2, 2, None, None, 2, None]
    assert service.calls == ["aa", "b", "unknown"]


def test_an_answer_counts_for_its_time_and_no_longer():
    service = Service()
    with Driver(declared(service, ttl=60)) as driver:
        pipe(driver, "a")
        driver.advance(59.999)
        pipe(driver, "a")
        assert service.calls == ["a"]
        driver.advance(0.001)
        pipe(driver, "a")
        assert service.calls == ["a", "a"]


@pytest.mark.parametrize("options", [{"ttl": 0}, {"size": 0}])
def test_nothing_is_kept_where_nothing_may_be(options):
    service = Service()
    with Driver(declared(service, **options)) as driver:
        pipe(driver, "a", "a")
        pipe(driver, "a")
        assert len(seen(driver)) == 3
    assert service.calls == ["a", "a"]  # the first two at the same time


def test_no_key_means_no_call_and_a_tombstone_is_dropped():
    service = Service()
    with Driver(declared(service)) as driver:
        driver.pipe("orders", key="k", value=None)
        pipe(driver, None)
        assert seen(driver) == [[None, 0, None]]
    assert service.calls == []


def test_without_on_it_is_the_records_key():
    service = Service()
    with Driver(declared(service, on=None)) as driver:
        driver.pipe("orders", key="kkk", value=Order("x"))
        assert seen(driver) == [["x", 0, 3]]


@pytest.mark.parametrize("bad", ["failing", "hanging"])
def test_an_error_or_a_call_that_takes_too_long_is_the_events_own(bad):
    service = Service()
    getattr(service, bad).add("bb")
    with Driver(declared(service, timeout=0.2)) as driver:
        pipe(driver, "a", "bb", "ccc", "bb", "dddd")
        assert [product for product, _, _ in seen(driver)] == ["a", "ccc", "dddd"]
        letters = driver.dead_letters("orders")
        assert [each.key for each in letters] == [b"k1", b"k3"]
        error = "LookupError" if bad == "failing" else "TimeoutError"
        assert all(error in str(each.headers) for each in letters)


def test_an_error_is_not_kept():
    service = Service()
    service.failing.add("a")

    async def once(product):
        try:
            return await service(product)
        finally:
            service.failing.clear()

    with Driver(declared(once, {"on_error": retry(1)})) as driver:
        pipe(driver, "a")
        assert seen(driver) == [["a", 0, 1]]


def test_a_key_that_cannot_be_had_or_kept_is_its_events_error():
    def key(order):
        if order.amount == 1:
            raise ValueError("no key")
        return [] if order.amount == 2 else order.product

    with Driver(declared(Service(), on=key)) as driver:
        pipe(driver, "a", "b", "c", "d")
        assert [product for product, _, _ in seen(driver)] == ["a", "d"]
        assert [each.key for each in driver.dead_letters("orders")] == [b"k1", b"k2"]


def test_a_worker_that_dies_asks_again_and_pairs_come_once():
    service = Service()
    with Driver(declared(service)) as driver:
        pipe(driver, "a", "b")
        driver.crash()
        driver.restart()
        pipe(driver, "a")
        assert [product for product, _, _ in seen(driver)] == ["a", "b", "a"]
    assert service.calls == ["a", "b", "a"]


@given(
    st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 4)), max_size=60),
    st.integers(0, 3),
    st.integers(0, 6),
)
def test_what_is_kept_is_what_was_used_last_and_is_not_too_old(uses, size, ttl_ms):
    """Against a list of all uses: of the keys used last, so many as fit, if young enough."""
    clock = HandClock()
    answers = Answers(clock, ttl_ms, size)
    last = []  # (key, answered at), the most recently used last
    for count, (key, wait) in enumerate(uses):
        clock.move_to(clock.now_ms() + wait)
        now = clock.now_ms()
        known = dict(last).get(key)
        fresh = known is not None and now < known + ttl_ms
        assert (answers.get(key) is not None) is fresh
        last = [each for each in last if each[0] != key]
        if fresh:
            last.append((key, known))
        else:
            answers.put(key, count)
            if ttl_ms:
                last = [*last, (key, now)][-size:] if size else []
        assert len(answers) <= size


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"concurrency": 0}, "concurrency=0"),
        ({"timeout": 0}, "timeout=0"),
        ({"ttl": -1}, "ttl=-1"),
        ({"size": -1}, "size=-1"),
    ],
)
def test_numbers_out_of_bounds_are_refused(options, says):
    with pytest.raises(ConfigError, match=says):
        declared(Service(), **options).topology()


def test_a_plain_function_is_refused():
    with pytest.raises(ConfigError, match="async def"):
        declared(len).topology()
