"""Agents written as in Faust's user guide, in the Driver."""
# ruff: noqa: PERF401  (agents as people write them)

import asyncio
from collections import Counter

import faust
import msgspec
import pytest

from engine import App, Contract, Event
from engine.errors import ConfigError
from engine.testing import Driver


class Order(msgspec.Struct):
    """An order, as in the user guide."""

    account_id: str
    amount: int = 1
    product: int = 0


class Withdrawal(faust.Record):
    """A faust.Record, as it stands in the user guide."""

    user: str
    country: str
    amount: float


def make(name="test"):
    app = App(name)
    return app, app.topic("orders", value_type=Order, key_type=str)


def values(driver, topic):
    return [row.value for row in driver.read(topic)]


def orders(*accounts, start=0):
    return [(account, Order(account), start + i) for i, account in enumerate(accounts)]


# --- views ---------------------------------------------------------------------------------------


def test_an_agent_that_yields_to_a_sink():
    app, topic = make()
    doubled = app.topic("doubled", value_type=int, key_type=str)

    @app.agent(topic, sink=[doubled])
    async def double(stream):
        async for order in stream:
            yield order.amount * 2

    with Driver(app) as driver:
        driver.pipe(topic, key="a", value=Order("a", 4), timestamp=70)
        [row] = driver.read(doubled)
        assert (row.key, row.value, row.timestamp) == ("a", 8, 70)


def test_items_and_events_and_enumerate():
    app, topic = make()
    seen = []

    @app.agent(topic)
    async def items(stream):
        async for key, order in stream.items():
            seen.append((key, order.account_id))

    @app.agent(topic)
    async def events(stream):
        async for event in stream.events():
            assert isinstance(event, Event)
            seen.append(event)

    @app.agent(topic)
    async def numbered(stream):
        async for number, order in stream.enumerate(10):
            seen.append((number, order.amount))

    with Driver(app) as driver:
        driver.pipe(topic, key="a", value=Order("x", 4), timestamp=1500, headers=(("h", b"1"),))
        driver.pipe(topic, value=Order("x", 5), timestamp=1600)
    assert ("a", "x") in seen
    assert (None, "x") in seen
    assert [pair for pair in seen if pair[0] in {10, 11}] == [(10, 4), (11, 5)]
    event = next(each for each in seen if isinstance(each, Event))
    assert event == ("a", Order("x", 4), (("h", b"1"),), 1.5, "orders", 0, 0)


def test_the_current_event():
    app, topic = make()
    seen = []

    @app.agent(topic)
    async def look(stream):
        assert stream.current_event is None
        async for _ in stream:
            seen.append((stream.current_event.key, stream.current_event.offset))

    with Driver(app) as driver:
        driver.pipe_many(topic, orders("a", "b"))
    assert seen == [("a", 0), ("b", 1)]


def test_views_can_be_stacked():
    app, topic = make()
    out = app.topic("out", value_type=None)

    async def is_big(order):
        await asyncio.sleep(0)
        return order.amount > 2

    @app.agent(topic, sink=[out])
    async def stacked(stream):
        big = stream.filter(is_big).map(lambda order: order.amount)
        async for number, amount in big.enumerate():
            yield [number, amount]

    with Driver(app) as driver:
        for amount in (1, 3, 2, 5):
            driver.pipe(topic, value=Order("a", amount))
        assert values(driver, out) == [[0, 3], [1, 5]]


def test_batches():
    app, topic = make()
    seen = []

    @app.agent(topic)
    async def whole(stream):
        async for batch in stream.batches():
            seen.append([order.account_id for order in batch])

    with Driver(app) as driver:
        driver.pipe_many(topic, orders("a", "b", "c"))
        driver.pipe_many(topic, orders("d"))
    assert seen == [["a", "b", "c"], ["d"]]


def test_batches_can_be_left_and_begun_again():
    app, topic = make()
    seen = []

    @app.agent(topic)
    async def whole(stream):
        async for batch in stream.batches():
            seen.append(len(batch))
            break

    with Driver(app) as driver:
        for count in (3, 1, 2):
            driver.pipe_many(topic, orders(*"abc"[:count]))
    assert seen == [3, 1, 2]


# --- take ----------------------------------------------------------------------------------------


def taking(max_, within=None):
    app, topic = make()
    out = app.topic("out", value_type=list[str], key_type=str)

    @app.agent(topic, sink=[out])
    async def take(stream):
        async for chunk in stream.take(max_, within=within):
            yield [order.account_id for order in chunk]

    return app, topic, out


def test_take_fills_its_buffer():
    app, topic, out = taking(2)
    with Driver(app) as driver:
        driver.pipe_many(topic, orders("a", "b", "c"))
        assert values(driver, out) == [["a", "b"]]
        driver.advance(1_000)
        assert values(driver, out) == []  # without within= it waits
        driver.pipe_many(topic, orders("d"))
        assert values(driver, out) == [["c", "d"]]


def test_take_within_gives_what_it_has():
    app, topic, out = taking(10, within=5)
    with Driver(app) as driver:
        driver.pipe_many(topic, orders("a", "b"))
        driver.advance(4.9)
        assert values(driver, out) == []
        driver.advance(0.2)
        assert values(driver, out) == [["a", "b"]]
        driver.advance(20)
        assert values(driver, out) == []  # nothing waits: nothing comes
        driver.pipe_many(topic, orders("c"))
        driver.advance(5)
        assert values(driver, out) == [["c"]]


def test_take_within_counts_from_the_first_event_of_a_buffer():
    app, topic, out = taking(2, within=5)
    with Driver(app) as driver:
        driver.pipe_many(topic, orders("a", "b", "c"))
        driver.advance(3)
        driver.pipe_many(topic, orders("d", "e"))
        assert values(driver, out) == [["a", "b"], ["c", "d"]]
        driver.advance(3)
        assert values(driver, out) == []
        driver.advance(2)
        assert values(driver, out) == [["e"]]


def test_take_within_keeps_its_deadline_while_the_agent_awaits():
    """The deadline passes while a filter is waiting: the buffer comes right after."""
    app, topic = make()
    out = app.topic("out", value_type=list[str])
    gate = asyncio.Event()

    async def passes(order):
        if order.account_id == "slow":
            await gate.wait()
        return order.account_id != "slow"

    @app.agent(topic, sink=[out])
    async def take(stream):
        async for chunk in stream.filter(passes).take(10, within=5):
            yield [order.account_id for order in chunk]

    @app.timer(6)
    async def open_gate():
        gate.set()

    with Driver(app) as driver:
        driver.pipe_many(topic, orders("a"))
        driver.advance(1)  # 4 seconds are left
        driver.broker.produce("orders", b"k", b'{"account_id":"slow"}', 0)
        driver._run(steps(driver, 5))
        driver._run(steps(driver, 5, until_ms=5_500))  # the deadline passes
        assert values(driver, out) == []
        driver._run(steps(driver, 5, until_ms=7_000))
        driver.settle()
        assert values(driver, out) == [["a"]]


async def steps(driver, count, until_ms=0):
    """Go round without waiting until all is done."""
    driver.clock.move_to(until_ms)
    for _ in range(count):
        await driver._engine.step()
        await asyncio.sleep(0)


@pytest.mark.parametrize("max_", [2, 3, 10])
def test_what_is_in_the_buffer_survives_a_crash_once(max_):
    app, topic, out = taking(max_, within=5)
    names = [f"n{number}" for number in range(17)]
    got = []
    with Driver(app) as driver:
        for number, name in enumerate(names):
            driver.pipe_many(topic, orders(name))
            if number % 4 == 1:
                driver.crash()
                driver.restart()
            got += values(driver, out)
        driver.advance(5)
        got += values(driver, out)
    assert [name for chunk in got for name in chunk] == names
    assert all(len(chunk) <= max_ for chunk in got)


def test_leaving_a_take_loop_acknowledges_the_chunk():
    app, topic = make()
    seen = []

    @app.agent(topic)
    async def take(stream):
        async for chunk in stream.take(2):
            seen.append([order.account_id for order in chunk])
            break

    with Driver(app) as driver:
        driver.pipe_many(topic, orders("a", "b"))
        driver.crash()
        driver.restart()
        driver.pipe_many(topic, orders("c", "d", "e"))
        driver.crash()
        driver.restart()
        driver.pipe_many(topic, orders("f"))
    assert seen == [["a", "b"], ["c", "d"], ["e", "f"]]


# --- leaving the loop ----------------------------------------------------------------------------


def test_an_agent_may_leave_its_loop_and_is_started_again():
    app, topic = make()
    seen, starts = [], []

    @app.agent(topic)
    async def leave(stream):
        starts.append(stream.current_event)
        async for order in stream:
            seen.append(order.account_id)
            if order.account_id in "ac":
                break

    with Driver(app) as driver:
        driver.pipe_many(topic, orders("a", "b", "c"))
        driver.pipe_many(topic, orders("d"))
    assert seen == ["a", "b", "c", "d"]
    assert [event and event.value.account_id for event in starts] == [
        None,  # to find out about its moves, before there are events
        None,
        "a",
        "c",
    ]


def test_an_agent_may_return_after_one_event():
    app, topic = make()
    out = app.topic("out", value_type=str)

    @app.agent(topic, sink=[out])
    async def one(stream):
        async for order in stream:
            yield order.account_id
            return

    with Driver(app) as driver:
        driver.pipe_many(topic, orders(*"abcde"))
        assert values(driver, out) == list("abcde")
        driver.crash()
        driver.restart()
        assert values(driver, out) == []


# --- moves ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("on", [Order.account_id, "account_id", lambda order: order.account_id])
def test_a_join_on_another_key_moves_the_records_there(on):
    app, topic = make()
    accounts = app.topic("accounts", value_type=str, key_type=str, compacting=True)
    out = app.topic("out", value_type=str, key_type=str)
    names = app.Table("names", source=accounts)

    @app.agent(topic, sink=[out])
    async def name(stream):
        async for order, found in stream.join(names, on=on, how="left"):
            yield f"{order.account_id} {found}"

    with Driver(app, partitions=4) as driver:
        for number in range(6):
            driver.pipe(accounts, key=f"a{number}", value=f"n{number}", timestamp=0)
        for number in range(8):
            driver.pipe(topic, key=f"o{number}", value=Order(f"a{number}"), timestamp=1)
        rows = {each.key: each.value for each in driver.read(out)}
    assert rows == {f"a{n}": f"a{n} {f'n{n}' if n < 6 else None}" for n in range(8)}


def test_group_by_brings_equal_keys_together():
    """Keyed by a random order id; grouped by account; four partitions."""
    app, topic = make()
    out = app.topic("out", value_type=None, key_type=str)
    counts = app.Table("counts", default=int)

    @app.agent(topic, sink=[out])
    async def count(stream):
        async for order in stream.group_by(Order.account_id):
            counts[order.account_id] += order.amount
            yield {"account": order.account_id, "total": counts[order.account_id]}

    accounts = [f"acc-{n % 5}" for n in range(40)]
    with Driver(app, partitions=4) as driver:
        for number, account in enumerate(accounts):
            driver.pipe(topic, key=f"order-{number}", value=Order(account), timestamp=number)
        got = values(driver, out)
        assert dict(driver.table(counts)) == Counter(accounts)
    totals = {}
    for row in got:
        assert row["total"] == totals.get(row["account"], 0) + 1
        totals[row["account"]] = row["total"]
    assert totals == Counter(accounts)
    homes = {}
    for number in range(4):
        for key, _, _, _ in driver.raw("test-count-account_id-repartition", number):
            assert homes.setdefault(key, number) == number
    assert len(homes) == 5


@pytest.mark.parametrize(
    ("key", "name", "keys"),
    [
        ("product", None, [1, 1, 2]),
        (Order.product, None, [1, 1, 2]),
        (lambda order: order.product, "by-product", ["1", "1", "2"]),  # nobody knows its type
        (lambda order: order.account_id, "by-account", ["a", "a", "a"]),
    ],
)
def test_group_by_a_key_of_another_type(key, name, keys):
    app, topic = make()
    out = app.topic("out", value_type=None)

    @app.agent(topic, sink=[out])
    async def grouped(stream):
        async for key_, _ in stream.group_by(key, name=name).items():  # noqa: PERF102
            yield key_

    with Driver(app, partitions=4) as driver:
        for product in (1, 2, 1):
            driver.pipe(topic, value=Order("a", product=product))
        assert sorted(values(driver, out)) == keys
        assert driver.dead_letters(topic) == []


def test_views_before_and_after_a_move_are_applied_once():
    app, topic = make()
    out = app.topic("out", value_type=None, key_type=str)
    looked = []

    def small(order):
        looked.append(order.amount)
        return order.amount < 5

    @app.agent(topic, sink=[out])
    async def grouped(stream):
        async for chunk in stream.filter(small).group_by("account_id").take(2):
            yield [order.amount for order in chunk]

    with Driver(app) as driver:
        for amount in (1, 9, 2, 3):
            driver.pipe(topic, value=Order("a", amount))
        assert values(driver, out) == [[1, 2]]
    assert looked == [1, 9, 2, 3]


def test_group_by_a_function_needs_a_name():
    app, topic = make()

    @app.agent(topic)
    async def grouped(stream):
        async for _ in stream.group_by(lambda order: order.account_id):
            pass

    with pytest.raises(ConfigError, match="needs name="), Driver(app):
        pass


def test_through_another_topic():
    app, topic = make()
    other = app.topic("other", value_type=Order, key_type=str)
    seen = []

    @app.agent(topic)
    async def through(stream):
        async for event in stream.through(other).events():
            seen.append((event.topic, event.key, event.value.account_id, event.timestamp))

    with Driver(app, partitions=4) as driver:
        driver.pipe_many(topic, orders("a", "b"))
    assert sorted(seen) == [("other", "a", "a", 0.0), ("other", "b", "b", 0.001)]


def test_a_crash_between_the_halves_of_a_move_loses_nothing():
    app, topic = make()
    counts = app.Table("counts", default=int)

    @app.agent(topic)
    async def count(stream):
        async for order in stream.group_by(Order.account_id):
            counts[order.account_id] += 1

    with Driver(app, partitions=3) as driver:
        for number in range(30):
            driver.broker.produce(
                "orders", b"%d" % number, msgspec.json.encode(Order(f"a{number % 4}")), number
            )
            driver._run(steps(driver, number % 7))
            driver.crash()
            driver.restart()
        assert dict(driver.table(counts)) == Counter(f"a{n % 4}" for n in range(30))


# --- joins ---------------------------------------------------------------------------------------


def joining(how):
    app, topic = make()
    users = app.Table("users", source=app.topic("users", key_type=str, compacting=True))
    out = app.topic("out", value_type=None, key_type=str)

    @app.agent(topic, sink=[out])
    async def joined(stream):
        async for order, user in stream.join(users, how=how):
            yield [order.amount, user]

    return app, topic, out


def test_an_inner_join_leaves_out_what_has_no_row():
    app, topic, out = joining("inner")
    with Driver(app, partitions=2) as driver:
        driver.pipe("users", key="a", value={"name": "Ann"})
        driver.pipe_many(topic, [("a", Order("a", 1), 1), ("b", Order("b", 2), 2)])
        driver.pipe("users", key="a", value=None)
        driver.pipe_many(topic, [("a", Order("a", 3), 3), (None, Order("a", 4), 4)])
        assert values(driver, out) == [[1, {"name": "Ann"}]]


def test_a_left_join_gives_none():
    app, topic, out = joining("left")
    with Driver(app) as driver:
        driver.pipe("users", key="a", value={"name": "Ann"})
        driver.pipe_many(topic, [("a", Order("a", 1), 1), ("b", Order("b", 2), 2)])
        driver.pipe("users", key="a", value=None)
        driver.pipe_many(topic, [("a", Order("a", 3), 3), (None, Order("a", 4), 4)])
        assert values(driver, out) == [[1, {"name": "Ann"}], [2, None], [3, None], [4, None]]


def test_a_join_of_another_kind_is_refused():
    app, _, _ = joining("outer")
    with pytest.raises(ConfigError, match="stream-table join is 'inner' or 'left'"), Driver(app):
        pass


def test_keys_that_nobody_declared_are_bytes_for_a_stream_and_text_for_a_table():
    """Keys of another program, as in Faust; the two meet in a join all the same."""
    app = App("keys")
    orders = app.topic("orders", value_type=Order)
    users = app.Table("users", source=app.topic("users", compacting=True))
    out = app.topic("out")
    seen = []

    @app.agent(orders, sink=[out])
    async def joined(stream):
        async for event in stream.events():
            seen.append((event.key, users.get("a")))
            yield event.key.decode()

    @app.agent(orders)
    async def other(stream):
        async for _, user in stream.join(users):
            seen.append(user)

    with Driver(app) as driver:
        driver.pipe("users", key="a", value={"name": "Ann"})
        driver.crash()  # what was in the cache comes from the store now
        driver.restart()
        driver.pipe("users", key="a", value={"name": "Anne"})
        driver.pipe(orders, key="a", value=Order("a"))
        [row] = driver.read(out)
        assert (row.key, row.value) == (b"a", "a")
        assert driver.table(users) == [("a", {"name": "Anne"})]
    assert seen == [(b"a", {"name": "Anne"}), {"name": "Anne"}]


def test_a_join_reads_the_key_as_the_table_does():
    app = App("keys")
    orders = app.topic("orders", value_type=Order, key_type=str)
    users = app.Table("users", source=app.topic("users", key_type=int, compacting=True))
    seen = []

    @app.agent(orders)
    async def joined(stream):
        async for _, user in stream.join(users):
            seen.append(user)

    with Driver(app) as driver:
        driver.pipe("users", key=7, value="seven")
        driver.pipe(orders, key="7", value=Order("a"))
    assert seen == ["seven"]


# --- windowed tables -----------------------------------------------------------------------------


def test_views_per_minute_as_in_the_guide():
    """``views[key] += 1``, ``.current()``, ``.now()``, ``.value()``."""
    app, topic = make()
    views = app.Table("views", default=int).tumbling(60, expires=3600)
    seen = []

    @app.agent(topic)
    async def count(stream):
        async for order in stream:
            before = views[order.account_id].current()
            views[order.account_id] += 1
            after = views[order.account_id]
            seen.append((before, after.current(), after.now(), after.value()))

    with Driver(app) as driver:
        for ts in (0, 59_999, 60_000, 61_000):
            driver.pipe(topic, value=Order("a"), timestamp=ts)
    assert seen == [(0, 1, 1, 1), (1, 2, 2, 2), (0, 1, 1, 1), (1, 2, 2, 2)]


def test_a_hopping_window_counts_an_event_in_each_of_its_windows():
    app, topic = make()
    out = app.topic("out", value_type=None, key_type=str)
    counts = app.Table("counts", default=int).hopping(  # keyed as its sink is
        10, 5, sink=out, into=lambda key, window, count: [key, window.start, window.end, count]
    )

    @app.agent(topic)
    async def count(stream):
        async for order in stream:
            counts[order.account_id] += order.amount

    with Driver(app) as driver:
        for ts in (7_000, 12_000):
            driver.pipe(topic, value=Order("a", 2), timestamp=ts)
        assert driver.table(counts) == [("a", 5_000, 15_000, 4), ("a", 10_000, 20_000, 2)]
        assert values(driver, out) == [["a", 0, 10_000, 2]]
        driver.close_windows()
        assert [(row.key, row.value) for row in driver.read(out)] == [
            ("a", ["a", 5_000, 15_000, 4]),
            ("a", ["a", 10_000, 20_000, 2]),
        ]
        assert driver.table(counts) == []


def test_other_changes_of_a_window_set():
    app, topic = make()
    table = app.Table("t", default=int).tumbling(10)
    flags = app.Table("f", default=int).tumbling(10)

    @app.agent(topic)
    async def change(stream):
        async for order in stream:
            table["k"] += 10
            table["k"] *= 3
            table["k"] -= 4
            table["set"] = order.amount
            table["apply"].apply(lambda value: value + 7)
            flags["k"] |= 6

    with Driver(app) as driver:
        driver.pipe(topic, value=Order("a", 5), timestamp=1)
        assert {row[0]: row[3] for row in driver.table(table)} == {"k": 26, "set": 5, "apply": 7}
        assert driver.table(flags)[0][3] == 6


def test_windows_close_at_the_end_of_input_of_a_topic_with_tombstones():
    """There a null value is no fault, so the mark must be found by its header."""
    app = App("test")
    topic = app.topic("in", contract=Contract.of("in", Order, null_values=True, key_type=str))
    out = app.topic("out", value_type=int, key_type=str)
    counts = app.Table("counts", default=int, key_type=str).tumbling(10, sink=out)
    seen = []

    @app.agent(topic)
    async def count(stream):
        async for key, order in stream.items():
            seen.append(order)
            counts[key] += 1

    with Driver(app) as driver:
        driver.pipe(topic, key="a", value=Order("a"), timestamp=1)
        driver.pipe(topic, key="a", value=None, timestamp=2)
        driver.close_windows()
        assert [(row.key, row.value) for row in driver.read(out)] == [("a", 2)]
    assert seen == [Order("a"), None]


# --- sinks ---------------------------------------------------------------------------------------


def test_agents_and_functions_as_sinks():
    app, topic = make()
    seen = []

    @app.agent(app.topic("second", value_type=int, key_type=str))
    async def second(stream):
        async for key, value in stream.items():
            seen.append(("agent", key, value))

    def plain(value):
        seen.append(("plain", value))

    async def slow(value):
        await asyncio.sleep(0)
        seen.append(("slow", value))

    @app.agent(topic, sink=[second, plain, slow])
    async def first(stream):
        async for order in stream:
            yield order.amount

    with Driver(app, partitions=2) as driver:
        driver.pipe(topic, key="k", value=Order("a", 5))
    assert sorted(seen) == [("agent", "k", 5), ("plain", 5), ("slow", 5)]


@pytest.mark.parametrize("more", [[], [print]])
def test_a_yielded_none_is_a_tombstone_and_bytes_go_as_they_are(more):
    app, topic = make()
    out = app.topic("out", key_type=str, compacting=True)

    @app.agent(topic, sink=[out, *more])
    async def emit(stream):
        async for order in stream:
            yield None if order.amount == 1 else b'{"raw":1}'

    with Driver(app) as driver:
        driver.pipe_many(topic, [("a", Order("a", 1), 0), ("b", Order("b", 2), 0)])
        assert [(row.key, row.value) for row in driver.read(out)] == [
            ("a", None),
            ("b", {"raw": 1}),
        ]


@pytest.mark.parametrize("more", [[], [print]])
def test_a_tombstone_keeps_the_key_where_the_contract_keys_by_a_field(more):
    app, topic = make()
    contract = Contract.of("out", Order, key_type=str, key_field="account_id", null_values=True)
    out = app.topic("out", contract=contract)

    @app.agent(topic, sink=[out, *more])
    async def emit(stream):
        async for order in stream:
            yield None if order.amount == 1 else order

    with Driver(app) as driver:
        driver.pipe_many(topic, [("k", Order("a", 1), 0), ("k", Order("b", 2), 0)])
        assert [row.key for row in driver.read(out)] == ["k", "b"]


def test_sends_and_casts_are_part_of_the_event():
    app, topic = make()
    out = app.topic("out", value_type=int, key_type=str)
    told = []

    @app.agent(app.topic("told", value_type=int))
    async def listener(stream):
        async for value in stream:
            told.append(value)

    @app.agent(topic)
    async def sender(stream):
        async for order in stream:
            await out.send(key="k", value=order.amount, headers={"h": b"1"})
            await out.send(key="k", value=order.amount + 1, timestamp=5.0)
            await listener.cast(order.amount)
            await listener.send(value=order.amount + 1)

    with Driver(app) as driver:
        driver.pipe(topic, key="x", value=Order("a", 5), timestamp=70)
        rows = driver.read(out)
        assert [(r.key, r.value, r.timestamp, r.header("h")) for r in rows] == [
            ("k", 5, 70, "1"),
            ("k", 6, 5_000, None),
        ]
    assert told == [5, 6]


# --- faust.Record, several topics, two apps ------------------------------------------------------


def test_faust_records():
    app = App("records")
    topic = app.topic("withdrawals", value_type=Withdrawal, key_type=str)
    out = app.topic("out", value_type=Withdrawal, key_type=str)
    totals = app.Table("totals", default=float)

    @app.agent(topic, sink=[out])
    async def track(stream):
        async for withdrawal in stream.group_by(Withdrawal.country):
            totals[withdrawal.country] += withdrawal.amount
            yield withdrawal

    with Driver(app, partitions=4) as driver:
        for amount in (1.5, 2.0):
            driver.pipe(topic, key="k", value=Withdrawal("u", "NO", amount))
        driver.pipe(topic, key="k", value=b'{"user":"u"}')
        driver.pipe(topic, key="k", value=b"[1]")
        driver.pipe(topic, key="k", value=b"x")
        assert dict(driver.table(totals)) == {"NO": 3.5}
        assert values(driver, out) == [Withdrawal("u", "NO", 1.5), Withdrawal("u", "NO", 2.0)]
        dead = driver.dead_letters(topic)
        assert [row.value for row in dead] == [b'{"user":"u"}', b"[1]", b"x"]
        assert [row.header("__contract.rule") for row in dead] == [
            "value.type",
            "value.type",
            "json",
        ]


def test_an_agent_on_several_topics():
    """Each with keys of its own type."""
    app = App("several")
    one = app.topic("one", value_type=int, key_type=str)
    two = app.topic("two", value_type=int, key_type=int)
    seen = []

    @app.agent([one, two])
    async def both(stream):
        async for event in stream.events():
            seen.append((event.topic, event.key, event.value))

    with Driver(app) as driver:
        driver.pipe(one, key="a", value=1)
        driver.pipe(two, key=5, value=2)
    assert seen == [("one", "a", 1), ("two", 5, 2)]


def test_two_apps_in_one_process():
    """Neither sees the other's tables, timers or sends, however they take turns."""
    apps = []
    for name in ("first", "second"):
        app, topic = make(name)
        counts = app.Table("counts", default=int)
        out = app.topic("out", value_type=str)

        def declare(app=app, topic=topic, counts=counts, out=out, name=name):
            @app.agent(topic)
            async def count(stream):
                async for order in stream:
                    counts[order.account_id] += order.amount

            @app.timer(1)
            async def tick():
                await out.send(value=name)

        declare()
        apps.append((app, topic, counts, out))
    (app1, topic1, counts1, out1), (app2, topic2, counts2, out2) = apps
    with Driver(app1) as one, Driver(app2) as two:
        for amount in (1, 2):
            one.pipe(topic1, key="k", value=Order("a", amount))
            two.pipe(topic2, key="k", value=Order("a", 10 * amount))
        one.advance(2)
        two.advance(1)
        assert one.table(counts1) == [("a", 3)]
        assert two.table(counts2) == [("a", 30)]
        assert values(one, out1) == ["first", "first"]
        assert values(two, out2) == ["second"]


# --- timers --------------------------------------------------------------------------------------


def test_timers_run_as_the_clock_moves():
    app, topic = make()
    out = app.topic("out", value_type=int)
    ticks = []

    @app.agent(topic)
    async def nothing(stream):
        async for _ in stream:
            pass

    @app.timer(2.0)
    async def every_two():
        ticks.append(2)
        await out.send(value=len(ticks))

    @app.timer(interval=3)
    async def every_three(app):
        ticks.append(3)

    with Driver(app, start_ms=1_000) as driver:
        driver.advance(1.9)
        assert ticks == []
        driver.advance(4.2)
        assert ticks[:3] == [2, 3, 2]
        assert sorted(ticks[3:]) == [2, 3]  # both at 6 s
        assert [row.timestamp for row in driver.read(out)] == [3_000, 5_000, 7_000]
