"""Agents that are chains of a stream's methods do what the same agents do, written out."""

import msgspec
import pytest

from engine import App
from engine.errors import ConfigError
from engine.testing import Driver


class Order(msgspec.Struct):
    user: str
    amount: int


class Row(msgspec.Struct):
    user: str
    amount: int
    tier: str


ORDERS = [("a", Order("a", 5)), ("b", Order("b", 0)), ("a", Order("a", 7)), ("c", Order("c", 9))]


def declared():
    app = App("chains")
    orders = app.topic("orders", value_type=Order, key_type=str, partitions=2)
    tiers = app.Table(source=app.topic("tiers", value_type=str, key_type=str, compacting=True,
                                       partitions=2))  # fmt: skip
    rows = app.topic("rows", value_type=Row, key_type=str, partitions=2)
    return app, orders, tiers, rows


def came_out(app):
    with Driver(app) as driver:
        for user, tier in (("a", "gold"), ("c", "tin")):
            driver.pipe("tiers", key=user, value=tier, timestamp=0)
        for number, (key, order) in enumerate(ORDERS):
            driver.pipe("orders", key=key, value=order, timestamp=number)
        return [(each.key, each.value, each.timestamp) for each in driver.read("rows")]


def test_a_chain_is_the_agent_written_out():
    app, orders, tiers, rows = declared()
    chain = app.stream(orders).filter(lambda order: order.amount).join(tiers)
    agent = chain.map(lambda pair: Row(pair[0].user, pair[0].amount, pair[1])).to(rows)
    assert agent.name == "orders-to-rows"
    chained = came_out(app)

    app, orders, tiers, rows = declared()

    @app.agent(orders, sink=[rows])
    async def work(stream):
        async for order, tier in stream.filter(lambda order: order.amount).join(tiers):
            yield Row(order.user, order.amount, tier)

    assert chained == came_out(app)
    assert [value.tier for _, value, _ in chained] == ["gold", "gold", "tin"]


def test_tables_that_a_chain_s_functions_use_are_found():
    app, orders, _, rows = declared()
    seen = app.Table("seen", default=int, key_type=str, value_type=int)

    def count(order):
        seen[order.user] += 1
        return Row(order.user, seen[order.user], "")

    app.stream(orders).map(count).to(rows)
    assert [value.amount for _, value, _ in came_out(app)] == [1, 1, 2, 1]


def test_a_chain_aggregates_into_windows():
    app, orders, _, rows = declared()
    spent = app.Table("spent", default=int, key_type=str, value_type=int).tumbling(
        0.002,
        reduce=lambda total, order: total + order.amount,
        sink=rows,
        into=lambda user, window, total: Row(user, total, str(window.start)),
    )
    app.stream(orders).aggregate(spent, key="user").to(name="spend")
    with Driver(app) as driver:
        for number, (key, order) in enumerate(ORDERS):
            driver.pipe("orders", key=key, value=order, timestamp=number, partition=0)
        driver.close_windows()
        came = [(each.value.user, each.value.amount) for each in driver.read("rows")]
    assert came == [("a", 5), ("b", 0), ("a", 7), ("c", 9)]


def test_what_a_chain_does_not_have_is_said():
    app, orders, _, _ = declared()
    with pytest.raises(ConfigError, match="no 'fliter'"):
        app.stream(orders).fliter(bool)
    with pytest.raises(ConfigError, match="no 'batches'"):
        app.stream(orders).batches()
    assert repr(app.stream(orders).filter(bool)) == "<Chain on orders: filter>"
