"""Joins in time through agents, on the true engine: two streams, and a stream with a history."""

from datetime import UTC, datetime

import msgspec
import pytest

from engine import App
from engine.errors import ConfigError
from engine.testing import Driver


class Order(msgspec.Struct):
    id: str
    customer: str = ""


class Payment(msgspec.Struct):
    order: str
    amount: int = 0


class Price(msgspec.Struct):
    cents: int


def shop(view, partitions=1, **how):
    """Orders and their payments within ten seconds, as a channel or by a view of the stream."""
    app = App("shop")
    orders = app.topic("orders", value_type=Order, key_type=str, partitions=partitions)
    payments = app.topic("payments", value_type=Payment, key_type=str, partitions=partitions)
    out = app.topic("out", key_type=str, partitions=partitions)
    how = {"within": 10, "grace": 5, **how}

    if view == "channel":

        @app.agent(app.Join("paid", orders, payments, **how), sink=[out])
        async def pay(pairs):
            async for order, payment in pairs:
                yield [order and order.id, payment and payment.amount]
    else:

        @app.agent(orders, sink=[out])
        async def pay(stream):
            async for order, payment in stream.join(payments, **how):
                yield [order and order.id, payment and payment.amount]

    return app


def rows(driver, topic="out"):
    return [(each.key, each.value, each.timestamp) for each in driver.read(topic)]


def order(driver, key, second, **fields):
    driver.pipe("orders", key=key, value=Order(key, **fields), timestamp=second * 1000)


def payment(driver, key, second, amount=1):
    driver.pipe("payments", key=key, value=Payment(key, amount), timestamp=second * 1000)


@pytest.mark.parametrize("view", ["channel", "view"])
def test_orders_meet_their_payments(view):
    with Driver(shop(view)) as driver:
        order(driver, "a", 100)
        payment(driver, "a", 110, 7)
        payment(driver, "a", 111, 8)
        payment(driver, "a", 90, 9)
        payment(driver, "b", 112)
        order(driver, "b", 105)
        assert rows(driver) == [
            ("a", ["a", 7], 110_000), ("a", ["a", 9], 100_000), ("b", ["b", 1], 112_000),
        ]  # fmt: skip


@pytest.mark.parametrize("view", ["channel", "view"])
def test_a_left_join_tells_of_orders_that_nobody_paid(view):
    with Driver(shop(view, how="left")) as driver:
        order(driver, "a", 100)
        payment(driver, "z", 115)
        assert rows(driver) == []
        payment(driver, "z", 116)
        assert rows(driver) == [("a", ["a", None], 100_000)]


def test_an_outer_join_tells_of_both_and_before_and_after_may_differ():
    with Driver(shop("channel", how="outer", within=None, before=0, after=10)) as driver:
        payment(driver, "a", 99)
        order(driver, "a", 100)
        payment(driver, "a", 105, 2)
        assert rows(driver) == [("a", [None, 1], 99_000), ("a", ["a", 2], 105_000)]


@pytest.mark.parametrize("keep", [True, False], ids=["stores kept", "stores lost"])
@pytest.mark.parametrize("view", ["channel", "view"])
def test_a_worker_that_dies_loses_nobody(view, keep):
    with Driver(shop(view, how="left")) as driver:
        for key, second in [("a", 100), ("b", 101), ("c", 102)]:
            order(driver, key, second)
            driver.crash()
            if not keep:
                driver.broker.stores.clear()
            driver.restart()
        payment(driver, "b", 105)
        assert rows(driver) == [("b", ["b", 1], 105_000)]
        driver.crash()
        if not keep:
            driver.broker.stores.clear()
        driver.restart()
        payment(driver, "z", 200)
        assert rows(driver) == [("a", ["a", None], 100_000), ("c", ["c", None], 102_000)]


def test_the_end_of_the_input_lets_all_out():
    with Driver(shop("channel", how="outer")) as driver:
        order(driver, "b", 100)
        payment(driver, "a", 100)
        driver.close_windows()
        assert rows(driver) == [("a", [None, 1], 100_000), ("b", ["b", None], 100_000)]
        assert driver.table("paid") == []


def test_an_agent_re_keys_and_then_joins():
    """Orders come under their id, payments under the customer; with more than one partition."""
    app = App("rekeyed")
    orders = app.topic("orders", value_type=Order, key_type=str)
    payments = app.topic("payments", value_type=Payment, key_type=str)
    out = app.topic("out", key_type=str)

    @app.agent(orders, sink=[out])
    async def pay(stream):
        pairs = stream.group_by(Order.customer).join(payments, within=10, how="left")
        async for order, payment in pairs:
            yield [order.id, payment and payment.amount]

    customers = [f"customer {number}" for number in range(12)]
    driver = Driver(app)
    driver.broker.create("orders", 2)
    driver.broker.create("payments", 3)
    with driver:
        assert driver.broker.counts["rekeyed-pay-customer-repartition"] == 3
        for number, customer in enumerate(customers):
            order(driver, f"order {number}", 100 + number, customer=customer)
            if number % 2:
                payment(driver, customer, 101 + number, number)
            if number % 5 == 0:
                driver.crash()
                driver.restart()
        for partition in range(3):  # each task has a stream time of its own
            driver.pipe(
                "payments", key=f"late {partition}", value=Payment("none"), timestamp=900_000,
                partition=partition,
            )  # fmt: skip
        paid = {key: (value, ts) for key, value, ts in rows(driver)}
        assert paid == {
            customer: (
                [f"order {number}", number if number % 2 else None],
                1000 * (101 + number if number % 2 else 100 + number),
            )
            for number, customer in enumerate(customers)
        }


def prices(history=3600, **how):
    """Orders with the price of their key as of then."""
    app = App("prices")
    orders = app.topic("orders", value_type=Order, key_type=str, partitions=1)
    source = app.topic("prices", value_type=Price, key_type=str, partitions=1, compacting=True)
    out = app.topic("out", key_type=str, partitions=1)
    table = app.Table("prices", source=source, history=history)

    @app.agent(orders, sink=[out])
    async def price(stream):
        async for _, row in stream.join(table, **how):
            yield [row and row.cents, (newest := table.get("a")) and newest.cents]

    return app


def set_price(driver, key, second, cents):
    value = None if cents is None else Price(cents)
    driver.pipe("prices", key=key, value=value, timestamp=second * 1000)


@pytest.mark.parametrize("keep", [True, False], ids=["stores kept", "stores lost"])
def test_a_stream_is_joined_with_what_the_table_said_at_its_time(keep):
    with Driver(prices(how="left")) as driver:
        for second, cents in [(100, 1), (300, 3), (200, 2), (400, None)]:
            set_price(driver, "a", second, cents)
            driver.crash()
            if not keep:
                driver.broker.stores.clear()
            driver.restart()
        for second in (99, 100, 250, 399, 400):
            order(driver, "a", second)
        assert [value[0] for _, value, _ in rows(driver)] == [None, 1, 2, 3, None]


def test_a_table_with_a_history_keeps_it_when_its_topic_is_compacted():
    """It has a changelog of its own: a store that is lost does not depend on the topic."""
    app = prices(how="left")
    [part] = app.topology().parts
    [table] = part.tables
    assert table.changelog.name == "prices-prices-changelog"
    with Driver(app) as driver:
        set_price(driver, "a", 100, 1)
        set_price(driver, "a", 200, 2)
        log = [(key, value) for key, value, _, _ in driver.raw("prices-prices-changelog")]
        assert len({key for key, _ in log}) == len(log) == 2


@pytest.mark.parametrize("keep", [True, False], ids=["stores kept", "stores lost"])
def test_records_wait_for_the_tables_late_updates(keep):
    with Driver(prices(how="left", grace=10)) as driver:
        set_price(driver, "a", 100, 1)
        order(driver, "a", 120)
        set_price(driver, "a", 140, 3)
        set_price(driver, "a", 110, 2)
        driver.crash()
        if not keep:
            driver.broker.stores.clear()
        driver.restart()
        order(driver, "b", 129)
        assert rows(driver) == []
        order(driver, "b", 130)
        assert rows(driver) == [("a", [2, 3], 120_000)]
        order(driver, "a", 115)  # too late to wait
        assert rows(driver) == [("a", [2, 3], 115_000)]
        driver.close_windows()
        assert rows(driver) == [("b", [None, 3], 129_000), ("b", [None, 3], 130_000)]


def test_a_record_without_a_key_waits_for_nothing():
    """Where Kafka Streams raises a NullPointerException."""
    with Driver(prices(how="left", grace=10)) as driver:
        driver.pipe("orders", value=Order("none"), timestamp=5_000)
        assert rows(driver) == [(None, [None, None], 5_000)]
    with Driver(prices(grace=10)) as driver:
        driver.pipe("orders", value=Order("none"), timestamp=5_000)
        driver.close_windows()
        assert rows(driver) == []


def test_an_agent_asks_a_table_of_its_own_what_it_said():
    app = App("asked")
    orders = app.topic("orders", value_type=Order, key_type=str)
    out = app.topic("out")
    last = app.Table("last", key_type=str, value_type=str, history=100)

    @app.agent(orders, sink=[out])
    async def ask(stream):
        async for each in stream:
            if each.id == "gone":
                yield last.pop(each.customer)
            elif each.id == "delete":
                del last[each.customer]
            elif each.id != "ask":
                last[each.customer] = each.id
            yield [
                last.get(each.customer),
                last.get(each.customer, at=10.0),
                last.get(each.customer, "?", at=datetime.fromtimestamp(19.999, UTC)),
            ]

    with Driver(app) as driver:
        for second, what in [(10, "x"), (20, "y"), (15, "w"), (30, "gone"), (40, "ask")]:
            driver.pipe("orders", value=Order(what, "ann"), timestamp=second * 1000)
        assert [each.value for each in driver.read("out")] == [
            ["x", "x", "x"], ["y", "x", "x"], ["y", "x", "w"], "y", [None, "x", "w"],
            [None, "x", "w"],
        ]  # fmt: skip
        driver.pipe("orders", value=Order("delete", "ann"), timestamp=50_000)
        [letter] = driver.dead_letters("orders")
        assert letter.header("__streams.errors.exception") == "KeyError"
        driver.pipe("orders", value=Order("z", "bob"), timestamp=130_000)
        driver.pipe("orders", value=Order("ask", "ann"), timestamp=130_000)
        [_, row] = driver.read("out")
        assert row.value == [None, None, "?"]  # 10 s and 19.999 s are out of history


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"within": 10, "how": "full"}, "'inner', 'left' or 'outer'"),
        ({}, "needs within="),
        ({"within": 1, "after": 2}, "needs within="),
        ({"within": -1}, "0 seconds or more"),
        ({"before": 1, "grace": -1}, "0 seconds or more"),
        ({"within": 1, "release": "late"}, "'close' or 'kafka'"),
    ],
)
def test_what_is_no_join_of_streams_is_refused(how, says):
    app = App("refused")
    left, right = app.topic("left", key_type=str), app.topic("right", key_type=str)
    with pytest.raises(ConfigError, match=says):
        app.Join("join", left, right, **how)


@pytest.mark.parametrize(
    ("history", "how", "says"),
    [
        (10, {"grace": 11}, "not more than the history of prices, which is 10"),
        (10, {"grace": -1}, "0 or more seconds"),
        (10, {"grace": 1, "how": "outer"}, "'inner' or 'left'"),
        (10, {"how": "outer"}, "'inner' or 'left'"),
        (10, {"within": 1}, "only a join with another topic has a window"),
        (-1, {}, "0 or more"),
    ],
)
def test_what_is_no_join_with_a_table_is_refused(history, how, says):
    with pytest.raises(ConfigError, match=says):
        prices(history, **how).topology()


def test_a_table_without_history_cannot_be_waited_for_and_one_with_it_has_no_windows():
    app = App("plain")
    table = app.Table("table")

    @app.agent(app.topic("in"))
    async def work(stream):
        async for _ in stream.join(table, grace=5):
            pass

    with pytest.raises(ConfigError, match=r"app\.Table\('table', history=seconds"):
        app.topology()
    with pytest.raises(ConfigError, match="cannot be windowed"):
        app.Table("versioned", history=5).tumbling(60)


def test_a_table_that_is_a_topic_is_not_written():
    app = App("read-only")
    table = app.Table("t", source=app.topic("t", compacting=True, partitions=1), history=5)

    @app.agent(app.topic("in", partitions=1), on_error="dead_letter")
    async def work(stream):
        async for value in stream:
            if value == "set":
                table["a"] = 1
            else:
                table.pop("a")

    with Driver(app) as driver:
        driver.pipe("in", value="set")
        driver.pipe("in", value="pop")
        letters = driver.dead_letters("in")
        assert [letter.header("__streams.errors.exception") for letter in letters] == [
            "ConfigError"
        ] * 2
