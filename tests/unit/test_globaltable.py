"""Global tables: whole on each worker, there before the first event, followed afterwards."""

import msgspec
import pytest

from engine import App
from engine.errors import ConfigError, ContextError
from engine.testing import Driver
from tables.codec import value_codec
from tables.globaltable import GlobalPartition
from tables.memory import MemoryStore
from tables.store import META


class Order(msgspec.Struct):
    country: str


class Country(msgspec.Struct):
    name: str


def declared():
    app = App("world")
    orders = app.topic("orders", value_type=Order, key_type=str)
    source = app.topic("countries", value_type=Country, key_type=str, compacting=True)
    out = app.topic("out", value_type=str, key_type=str)
    countries = app.GlobalTable("atlas", source=source)

    @app.agent(orders, sink=[out])
    async def name(stream):
        async for order in stream:
            country = countries.get(order.country)
            yield country.name if country is not None else "?"

    return app


def driver_of(app, **settings):
    """More partitions of the table's topic than of the stream's."""
    driver = Driver(app, partitions=2, **settings)
    driver.broker.create("countries", 5)
    return driver


def order(driver, country):
    driver.pipe("orders", key="o", value=Order(country))
    return [each.value for each in driver.read("out")]


def settle_in(driver, **countries):
    for key, name in countries.items():
        driver.pipe("countries", key=key, value=name and Country(name))


def test_what_was_there_before_the_start_is_found_by_the_first_event():
    driver = driver_of(declared())
    for number in range(20):
        driver.broker.produce("countries", b"c%d" % number, b'{"name":"n%d"}' % number, 0)
        driver.broker.create("orders", 2)
        driver.broker.produce("orders", b"o", b'{"country":"c%d"}' % number, 0)
    with driver:
        assert [each.value for each in driver.read("out")] == [f"n{n}" for n in range(20)]


@pytest.mark.parametrize("how", ["inner", "left"])
def test_a_stream_joins_it_by_any_key(how):
    app = App("joined")
    orders = app.topic("orders", value_type=Order, key_type=str, compacting=True)
    source = app.topic("countries", value_type=Country, key_type=str, compacting=True)
    out = app.topic("out", value_type=str, key_type=str)
    countries = app.GlobalTable("atlas", source=source)

    @app.agent(orders, sink=[out])
    async def name(stream):
        async for order, country in stream.join(countries, on="country", how=how):
            yield f"{order.country} {country.name if country else '?'}"

    with driver_of(app) as driver:
        settle_in(driver, de="Germany")
        driver.pipe("orders", key="tombstone")
        assert order(driver, "de") == ["de Germany"]
        assert order(driver, "fr") == (["fr ?"] if how == "left" else [])
        assert app.topology().parts[0].tables == ()


def test_changes_and_deletions_are_seen():
    with driver_of(declared()) as driver:
        settle_in(driver, de="Germany")
        assert order(driver, "de") == ["Germany"]
        settle_in(driver, de="Deutschland", fr="France")
        assert order(driver, "de") == ["Deutschland"]
        assert order(driver, "fr") == ["France"]
        settle_in(driver, fr=None)
        assert order(driver, "fr") == ["?"]


@pytest.mark.parametrize("keep", [True, False])
def test_a_worker_that_comes_back_has_it_all(keep):
    with driver_of(declared()) as driver:
        settle_in(driver, de="Germany", fr="France", it="Italy")
        driver.crash()
        if not keep:
            driver.broker.stores.clear()
        driver.broker.produce("countries", b"fr", None, 0)
        driver.broker.produce("countries", b"es", b'{"name":"Spain"}', 0)
        driver.restart()
        found = [order(driver, key) for key in ("de", "fr", "it", "es")]
        assert found == [["Germany"], ["?"], ["Italy"], ["Spain"]]


def test_only_what_is_new_is_read_again():
    with driver_of(declared()) as driver:
        settle_in(driver, de="Germany")
        driver.crash()
        driver.broker.stores["global"].write({"atlas": [(b"de", b'{"name":"from the store"}')]})
        driver.restart()
        assert order(driver, "de") == ["from the store"]


def test_a_record_that_breaks_the_contract_is_left_out(caplog):
    with driver_of(declared()) as driver:
        settle_in(driver, de="Germany")
        driver.pipe("countries", key="de", value=b'{"name":5}')
        assert order(driver, "de") == ["Germany"]
    assert "1 records break their contract and are left out" in caplog.text


def test_partitions_that_are_added_are_read():
    with driver_of(declared()) as driver:
        broker = driver.broker
        driver.crash()
        broker.counts["countries"] = 1
        driver.restart()
        broker.counts["countries"] = 5
        driver.advance(11)
        settle_in(driver, **{f"c{n}": f"n{n}" for n in range(9)})
        assert [order(driver, f"c{n}") for n in range(9)] == [[f"n{n}"] for n in range(9)]


def replace(driver):
    """Create the topic anew, with another country in it."""
    for number in range(5):
        log = [tp for tp in driver.broker.logs if tp == ("countries", number)]
        driver.broker.logs[log[0]] = []
    driver.broker.produce("countries", b"es", b'{"name":"Spain"}', 0)


@pytest.mark.parametrize("told", ["id", "offsets"])
def test_a_topic_that_was_created_anew_while_nobody_looked_is_read_anew(told):
    with driver_of(declared()) as driver:
        driver.broker.ids["countries"] = "one"
        settle_in(driver, de="Germany", fr="France")
        driver.crash()
        driver.restart()  # it notes the id
        driver.crash()
        replace(driver)
        if told == "id":
            driver.broker.ids["countries"] = "other"
            for number in range(9 * 5):  # as many records as before, and more
                driver.broker.produce("countries", b"x", None, 0, partition=number % 5)
        driver.restart()
        assert [order(driver, key) for key in ("de", "es")] == [["?"], ["Spain"]]


@pytest.mark.parametrize("told", ["id", "offsets"])
def test_a_topic_that_is_created_anew_meanwhile_ends_the_worker(told):
    driver = driver_of(declared())
    driver.broker.ids["countries"] = "one"
    with driver:
        settle_in(driver, de="Germany", fr="France", it="Italy")
        replace(driver)
        if told == "id":
            driver.broker.ids["countries"] = "other"
            for number in range(9 * 5):  # as many records as before, and more
                driver.broker.produce("countries", b"x", None, 0, partition=number % 5)
        with pytest.raises(ConfigError, match="estart the worker, which reads it anew"):
            driver.advance(6)
            driver.advance(6)
        driver.crash()
        driver.restart()
        assert [order(driver, key) for key in ("de", "es")] == [["?"], ["Spain"]]


def test_a_store_that_is_too_old_for_its_topics_tombstones_is_read_anew():
    with driver_of(declared()) as driver:
        settle_in(driver, de="Germany")
        driver.crash()
        driver.broker.stores["global"].write({"atlas": [(b"fr", b'{"name":"long gone"}')]})
        driver.clock.move_to(2 * 86_400_000)
        driver.restart()
        assert [order(driver, key) for key in ("de", "fr")] == [["Germany"], ["?"]]


def test_a_topic_that_is_silent_for_days_is_not_read_again():
    with driver_of(declared()) as driver:
        settle_in(driver, de="Germany")
        driver.broker.stores["global"].write({"atlas": [(b"fr", b'{"name":"kept"}')]})
        for _ in range(3):
            driver.advance(40_000)
        driver.crash()
        driver.restart()
        assert order(driver, "fr") == ["kept"]


def test_it_takes_no_part_in_what_must_be_co_partitioned_and_is_in_the_topology():
    topology = declared().topology()
    assert [topic.name for topic in topology.parts[0].inputs] == ["orders"]
    assert topology.parts[0].tables == ()
    assert [table.name for table in topology.globals] == ["atlas"]
    assert "countries" in topology.topics


def test_it_is_read_only_and_for_agents():
    app = declared()
    atlas = app.declared_tables["atlas"]
    with pytest.raises(ConfigError, match="send to the topic instead"):
        atlas["de"] = Country("Germany")
    with pytest.raises(ContextError, match="inside an agent"):
        atlas.get("de")
    with pytest.raises(ConfigError, match="history"):
        app.stream("orders").join(atlas, on="country", grace=5).to(name="late")
        app.topology()
    with pytest.raises(ConfigError, match=r"value_type is .*Country.* and not"):
        app.GlobalTable("other", source=app.topic("more", value_type=Country), value_type=Order)
    with pytest.raises(ConfigError, match="needs source="):
        app.GlobalTable("nothing")
    with pytest.raises(ConfigError, match="would be the same global table"):
        app.GlobalTable("again", source=atlas.source)


def test_its_cache_is_bounded_and_forgets_what_changes():
    store = MemoryStore()
    numbers = value_codec(int)
    table = GlobalPartition("t", store, key=numbers, value=numbers, cache_entries=8)
    table.apply([(numbers.encode(n), numbers.encode(n)) for n in range(30)], {META: []})
    assert [table.get(n) for n in range(31)] == [*range(30), None]
    assert len(table._cache) <= 8
    table.apply([(numbers.encode(29), numbers.encode(5)), (numbers.encode(28), None)], {})
    assert (table.get(29), table.get(28, "gone")) == (5, "gone")
    assert dict(table.items())[29] == 5
