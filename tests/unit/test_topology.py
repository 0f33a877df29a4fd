"""What belongs together, and what an app is told when it does not fit."""

import types

import pytest
from msgspec import Struct

from engine import App
from engine.errors import ConfigError, ContextError
from engine.testing import Driver
from engine.topology import tables_used_by


class Order(Struct, frozen=True):
    """What is on the topics here."""

    id: str
    customer: str


def two_topic_app() -> App:
    """An agent on one topic that looks things up in a table that is another."""
    app = App("shop")
    orders = app.topic("orders", key_type=str, value_type=Order)
    customers = app.topic("customers", key_type=str, value_type=Order, compacting=True)
    table = app.Table("customers", source=customers)

    @app.agent(orders)
    async def look_up(stream):
        async for order in stream:
            table.get(order.customer)

    return app


def test_agents_that_share_nothing_are_apart_and_those_that_share_a_table_are_together() -> None:
    """Sub-topologies are the connected parts of agents, topics and tables."""
    app = App("parts")
    one, two, three = (app.topic(name, key_type=str) for name in ("one", "two", "three"))
    shared = app.Table("shared", default=int)

    @app.agent(one)
    async def first(stream):
        async for _ in stream:
            shared["n"] += 1

    @app.agent(two)
    async def alone(stream):
        async for _ in stream:
            pass

    @app.agent(three)
    async def last(stream):
        async for _ in stream:
            shared["n"] += 1

    parts = app.topology().parts
    assert [[node.agent.name for node in part.nodes] for part in parts] == [
        ["first", "last"],
        ["alone"],
    ]
    assert [table.name for table in parts[0].tables] == ["shared"]


def test_joined_topics_of_different_widths_are_refused_with_the_fix() -> None:
    """The message says which topics have how many partitions, and what to do."""
    driver = Driver(two_topic_app())
    driver.broker.create("orders", 12)
    driver.broker.create("customers", 4)
    with pytest.raises(ConfigError) as refused, driver:
        pass
    text = str(refused.value)
    assert "customers has 4, orders has 12" in text
    assert "for look_up" in text
    assert "headrace topics create customers --partitions 12" in text
    assert "group_by" in text


def test_a_missing_input_is_created_as_wide_as_what_it_is_joined_with() -> None:
    """Not with the default number of partitions, which would not fit."""
    driver = Driver(two_topic_app(), partitions=1)
    driver.broker.create("orders", 5)
    with driver:
        assert driver.broker.counts["customers"] == 5


def test_a_changelog_that_does_not_fit_its_inputs_is_refused() -> None:
    """Inputs were re-partitioned under a table that was logged before."""
    app = App("grown")
    numbers = app.topic("numbers", key_type=str)
    sums = app.Table("sums", default=int)

    @app.agent(numbers)
    async def add(stream):
        async for _ in stream:
            sums["n"] += 1

    driver = Driver(app)
    driver.broker.create("numbers", 6)
    driver.broker.create("grown-sums-changelog", 3)
    with pytest.raises(ConfigError, match="has 3 partitions but its task's inputs have 6"), driver:
        pass


def test_tables_are_found_in_globals_closures_modules_and_functions_that_are_called() -> None:
    """An agent need not say which tables it uses."""
    app = App("found")
    topic = app.topic("t")
    names = ("closed_over", "in_module", "in_function", "unused")
    tables = {name: app.Table(name.replace("_", "-"), default=int) for name in names}
    closed_over, in_function = tables["closed_over"], tables["in_function"]
    module = types.ModuleType("some_tables")
    module.in_module = tables["in_module"]

    def step() -> None:
        in_function["x"] += 1

    @app.agent(topic)
    async def agent(stream):
        async for _ in stream:
            closed_over["x"] += 1
            module.in_module["x"] += 1
            step()

    found = tables_used_by(agent, list(tables.values()))
    assert {table.name for table in found} == {"closed-over", "in-module", "in-function"}


def test_a_table_that_cannot_be_seen_is_named_in_the_error_with_the_fix() -> None:
    """Dynamic access needs tables=[...]; the error says so, and with it all is well."""
    for declared in (False, True):
        app = App("dynamic")
        topic = app.topic("t", key_type=str)
        hidden = {"it": [app.Table("hidden", default=int)]}

        @app.agent(topic, tables=[hidden["it"][0]] if declared else [], on_error="stop")
        async def agent(stream, hidden=hidden):
            async for _ in stream:
                hidden["it"][0]["n"] += 1

        if declared:
            with Driver(app) as driver:
                driver.pipe("t", key="k", value=1)
                assert driver.table("hidden") == [("n", 1)]
        else:
            with pytest.raises(Exception, match="raised ContextError") as failed, Driver(app) as d:
                d.pipe("t", key="k", value=1)
            cause = failed.value.reason.cause
            assert isinstance(cause, ContextError)
            assert "tables=[hidden]" in str(cause)


def test_a_table_outside_of_an_agent_raises_instead_of_answering() -> None:
    """There is no partition to look into."""
    app = App("outside")
    table = app.Table("t", default=int)
    for use in (lambda: table["k"], lambda: table.get("k"), lambda: "k" in table):
        with pytest.raises(ContextError, match="inside an agent"):
            use()


def test_an_app_without_agents_says_what_is_missing() -> None:
    """The usual reason is a module that was not imported."""
    with pytest.raises(ConfigError, match="no agents"):
        App("empty").topology()


def test_names_are_not_given_twice() -> None:
    """Neither to agents nor to tables."""
    app = App("twice")
    app.Table("t")
    with pytest.raises(ConfigError, match="two tables named 't'"):
        app.Table("t")

    @app.agent(app.topic("a"), name="x")
    async def one(stream):
        async for _ in stream:
            pass

    with pytest.raises(ConfigError, match="two agents named 'x'"):

        @app.agent(app.topic("b"), name="x")
        async def two(stream):
            async for _ in stream:
                pass
