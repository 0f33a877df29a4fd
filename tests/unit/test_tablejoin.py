"""Joins of two tables: against their definition, through crashes, and on the true engine."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import App, Contract
from engine.errors import ConfigError
from engine.testing import Driver
from tables.codec import value_codec
from tables.memory import MemoryStore
from tables.store import TIMERS
from tables.tablejoin import TableJoinPartition, restored
from tests.unit.harness import Harness, scripts

KEYS = [b"a", b"bb", None]
NUMBERS = value_codec(int)

updates = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.sampled_from(KEYS),
        st.integers(0, 30),
        st.one_of(st.none(), st.integers(0, 9)),
    ),
    max_size=25,
)


def partition(store, how, history_ms, **options):
    return TableJoinPartition(
        "join", store, how=how, codecs=(NUMBERS, NUMBERS), history_ms=history_ms, **options
    )


def counts(updates, place, history_ms):
    """Say whether an update counts: with a history, only the newest of its key that is not old."""
    side, key, ts, _ = updates[place]
    before = [each for each in updates[:place] if each[0] == side and each[1] is not None]
    if history_ms is None:
        return True
    too_late = any(ts < time - history_ms for _, _, time, _ in before)
    return not too_late and not any(other == key and time > ts for _, other, time, _ in before)


def by_definition(updates, how, history_ms):
    """Look at all that came before each update, and say what row it makes."""
    rows = []
    counted = []
    for place, (side, key, ts, value) in enumerate(updates):
        if key is None or not counts(updates, place, history_ms):
            continue

        def latest(of, key=key):
            mine = [(v, t) for s, k, t, v in counted if (s, k) == (of, key)]
            return mine[-1] if mine else (None, None)

        was, _ = latest(side)
        other, other_ts = latest(1 - side)
        counted.append((side, key, ts, value))
        pair = (value, other) if side == 0 else (other, value)
        exists = {
            "inner": None not in pair,
            "left": pair[0] is not None,
            "outer": pair != (None, None),
        }[how]
        alone = how == "outer" or (how == "left" and side == 0)
        if other is None and (not alone or was is value is None):
            continue
        rows.append((key, ts if other is None else max(ts, other_ts), pair if exists else None))
    return rows


@pytest.mark.parametrize("how", ["inner", "left", "outer"])
@pytest.mark.parametrize("history_ms", [None, 0, 7])
@given(updates, scripts, st.sampled_from([0, 1, 100]))
def test_rows_are_as_defined_through_cuts_crashes_and_lost_disks(
    how, history_ms, updates, script, cache_entries
):
    emit_into = []

    def make(store, emit):
        emit_into[:] = [emit]
        return partition(store, how, history_ms, cache_entries=cache_entries)

    def apply(join, update):
        for row in join.step(*update):
            emit_into[0](*row)

    harness = Harness(make, apply)
    harness.restored = lambda changes: restored("join", changes, history_ms)
    harness.run(updates, script)
    assert harness.emitted == by_definition(updates, how, history_ms)


def test_a_deletion_is_forgotten_once_nothing_older_can_come():
    store = MemoryStore()
    join = partition(store, "inner", 10)
    for update in [(0, b"a", 5, 1), (0, b"a", 6, None), (1, b"a", 6, None)]:
        join.step(*update)
    store.write(join.cut().store)
    join.committed()
    assert len(store.scan("join", b"r", b"s")) == 1
    assert len(store.scan(TIMERS)) == 2
    for side in (0, 1):
        join.step(side, b"b", 17, 1)
    store.write(join.cut().store)
    join.committed()
    assert [key for key, _ in store.scan("join", b"r", b"s")] == [b"rb"]
    assert store.scan(TIMERS) == []


class Person(msgspec.Struct):
    name: str


class Address(msgspec.Struct):
    city: str


def declared(how="left"):
    app = App("tabled")
    people = app.topic("people", value_type=Person, key_type=str, compacting=True)
    addresses = app.topic("addresses", value_type=Address, key_type=str, compacting=True)
    out = app.topic("out", value_type=str, key_type=str, compacting=True)
    joined = app.TableJoin("homes", people, addresses, how=how)

    @app.agent(joined, sink=[out])
    async def tell(rows):
        async for row in rows:
            if row is None:
                yield None
            else:
                person, address = row
                yield f"{person.name} of {address.city if address else '?'}"

    return app


@pytest.mark.parametrize("partitions", [1, 3])
def test_an_agent_gets_pairs_and_none_for_a_row_that_is_gone(partitions):
    with Driver(declared(), partitions=partitions) as driver:
        driver.pipe("people", key="p1", value=Person("Ann"), timestamp=5)
        driver.pipe("addresses", key="p1", value=Address("Rome"), timestamp=3)
        driver.pipe("people", key="p1", timestamp=8)
        rows = [(each.key, each.value, each.timestamp) for each in driver.read("out")]
        assert rows == [("p1", "Ann of ?", 5), ("p1", "Ann of Rome", 5), ("p1", None, 8)]
        assert driver.table("homes") == [(b"p1", (None, Address("Rome")))]


@pytest.mark.parametrize("form", ["view", "chain"])
def test_a_method_of_the_stream_does_the_same(form):
    app = App("viewed")
    people = app.topic("people", value_type=Person, key_type=str, compacting=True)
    addresses = app.topic("addresses", value_type=Address, key_type=str, compacting=True)
    out = app.topic("out", value_type=str, key_type=str, compacting=True)

    def text(row):
        return row and f"{row[0].name} of {row[1].city if row[1] else '?'}"

    if form == "chain":
        app.stream(people).table_join(addresses, how="left").map(text).to(out, name="tell")
    else:

        @app.agent(people, sink=[out])
        async def tell(stream):
            async for row in stream.table_join(addresses, how="left"):
                yield text(row)

    with Driver(app, partitions=3) as driver:
        driver.pipe("people", key="p1", value=Person("Ann"), timestamp=5)
        driver.pipe("addresses", key="p1", value=Address("Rome"), timestamp=3)
        driver.pipe("people", key="p1", timestamp=8)
        rows = [(each.key, each.value, each.timestamp) for each in driver.read("out")]
        assert rows == [("p1", "Ann of ?", 5), ("p1", "Ann of Rome", 5), ("p1", None, 8)]
        assert len(driver.table("tell-table-join-addresses")) == 1


def test_a_table_that_is_a_topic_can_be_a_side_too():
    app = App("tabled")
    topics = [app.topic(n, value_type=Person, key_type=str, compacting=True) for n in "ab"]
    tables = [app.Table(source=topic) for topic in topics]
    assert app.TableJoin("both", *tables).inputs == tuple(topics)


@pytest.mark.parametrize(
    ("right", "options", "says"),
    [
        ("addresses", {"how": "cross"}, "none of inner, left, outer"),
        ("addresses", {"history": -1}, "0 or more"),
        ("people", {}, "use two topics"),
    ],
)
def test_what_cannot_be_is_said_where_it_is_declared(right, options, says):
    app = declared()
    with pytest.raises(ConfigError, match=says):
        app.TableJoin("x", app.topic_named("people"), app.topic_named(right), **options)


def test_a_side_must_be_a_topic_that_takes_tombstones():
    app = declared()
    people = app.topic_named("people")
    with pytest.raises(ConfigError, match="no table that is a topic"):
        app.TableJoin("x", people, app.Table("counts", default=int))
    plain = app.topic("plain", contract=Contract.of("plain", Person))
    with pytest.raises(ConfigError, match="takes no tombstones"):
        app.TableJoin("x", plain, people)
