"""Foreign-key joins: what is said between the sides in any order, and on the true engine."""

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import App
from engine.errors import ConfigError
from engine.testing import Driver
from tables.codec import value_codec
from tables.foreignkey import LeftPartition, RightPartition, Subscription
from tables.memory import MemoryStore

ANY = value_codec(None)
LEFTS, RIGHTS = 2, 2
"""Partitions of either side."""

lefts = st.tuples(
    st.just("left"),
    st.sampled_from([b"a", b"ab"]),
    st.one_of(st.none(), st.tuples(st.sampled_from([b"x", b"x\xff", None]), st.integers(0, 1))),
)
rights = st.tuples(
    st.just("right"), st.sampled_from([b"x", b"x\xff"]), st.sampled_from([None, b"1", b"2"])
)
deliveries = st.integers(0, LEFTS + RIGHTS - 1)
moves = st.lists(st.one_of(lefts, rights, deliveries, st.just("commit")), max_size=40)


class Cluster:
    """Both sides, several partitions each, and queues between them that are read at any time."""

    def __init__(self, how, cache_entries):
        self.table = {}  # what comes out
        self.subscriptions = [[] for _ in range(RIGHTS)]
        self.answers = [[] for _ in range(LEFTS)]
        self.lefts = [
            LeftPartition(
                "left", MemoryStore(), how=how, codecs=(ANY, value_codec(bytes)),
                foreign_key=lambda value: value[0], send=self.sender(number),
                cache_entries=cache_entries,
            )
            for number in range(LEFTS)
        ]  # fmt: skip
        self.rights = [
            RightPartition("right", MemoryStore(), cache_entries=cache_entries)
            for _ in range(RIGHTS)
        ]

    def sender(self, number):
        def send(foreign_key, key, version, wants, ends, ts):
            wish = Subscription(key, version, wants, ends, number)
            self.subscriptions[len(foreign_key) % RIGHTS].append((foreign_key, wish, ts))

        return send

    def show(self, results):
        self.table |= {key: value for key, _, value in results}

    def change(self, side, key, value):
        if side == "left":
            self.show(self.lefts[len(key) % LEFTS].step(0, key, 0, value))
        else:
            raw = None if value is None else value_codec(bytes).encode(value)
            for left_key, number, answer in self.rights[len(key) % RIGHTS].update(key, raw, 0):
                self.answers[number].append((left_key, answer))

    def deliver(self, number):
        """Deliver what is first in one of the queues, if there is anything."""
        if number < RIGHTS:
            if self.subscriptions[number]:
                foreign_key, wish, ts = self.subscriptions[number].pop(0)
                answered = self.rights[number].subscribe(foreign_key, wish, ts)
                if answered is not None:
                    self.answers[wish.partition].append((wish.key, answered[0]))
        elif self.answers[number - RIGHTS]:
            key, answer = self.answers[number - RIGHTS].pop(0)
            self.show(self.lefts[number - RIGHTS].step(1, key, 0, answer))

    def run(self, moves):
        for move in moves:
            if move == "commit":
                self.commit()
            elif type(move) is int:
                self.deliver(move)
            else:
                self.change(*move)

    def commit(self):
        for partition in (*self.lefts, *self.rights):
            partition._store.write(partition.cut().store)
            partition.committed()

    def drain(self):
        while any((*self.subscriptions, *self.answers)):
            for number in range(RIGHTS + LEFTS):
                self.deliver(number)


def join_of(changes, how):
    """Join what the two tables hold in the end."""
    left, right = ({k: v for s, k, v in changes if s == side} for side in ("left", "right"))
    joined = {}
    for key, value in left.items():
        if value is not None:
            partner = right.get(value[0])
            if partner is not None or how == "left":
                joined[key] = (list(value), partner)
    return joined


def check_the_end(how, moves, cache_entries):
    """The output is the join of both tables, and nothing is left of what has gone."""
    cluster = Cluster(how, cache_entries)
    cluster.run(moves)
    cluster.drain()
    changes = [move for move in moves if type(move) is tuple]
    shown = {
        key: (list(pair[0]), pair[1]) for key, pair in cluster.table.items() if pair is not None
    }
    assert shown == join_of(changes, how)
    cluster.commit()
    left = {key: value for side, key, value in changes if side == "left"}
    left = {key: value for key, value in left.items() if value is not None}
    stored = {key for p in cluster.lefts for key, _ in p._store.scan("left", b"l", b"m")}
    assert stored == {b"l" + key for key in left}
    subscribed = {pair for p in cluster.rights for pair in p.items()}
    assert subscribed == {(value[0], key) for key, value in left.items() if value[0] is not None}


@pytest.mark.parametrize("how", ["inner", "left"])
@settings(max_examples=200)
@given(moves, st.sampled_from([0, 100]))
def test_in_the_end_the_output_is_the_join_however_late_the_answers_come(how, moves, cache_entries):
    """Every interleaving: changes that overtake answers, come back to an old value, and go."""
    check_the_end(how, moves, cache_entries)


def test_longer_runs_end_with_the_join_too():
    for seed in range(1500):
        rng = random.Random(seed)
        left_keys = [b"a", b"ab", b"c"][: rng.randint(1, 3)]
        right_keys = [b"x", b"x\xff", b"z"][: rng.randint(1, 3)]
        moves = []
        for _ in range(rng.randint(1, 120)):
            kind = rng.random()
            if kind < 0.3:
                value = (rng.choice([*right_keys, None]), rng.randint(0, 2))
                moves.append(("left", rng.choice(left_keys), rng.choice([None, value])))
            elif kind < 0.45:
                moves.append(("right", rng.choice(right_keys), rng.choice([None, b"1", b"2"])))
            elif kind < 0.55:
                moves.append("commit")
            else:
                moves.append(rng.randrange(LEFTS + RIGHTS))
        check_the_end(rng.choice(["inner", "left"]), moves, rng.choice([0, 1, 100]))


RACES = {
    "a deletion of the right row is overtaken by an update of the left one": [
        ("right", b"x", b"1"), ("left", b"a", (b"x", 0)), "drain",
        ("right", b"x", None), ("left", b"a", (b"x", 1)), "drain",
    ],
    "a row comes back to an old value before an old answer does": [
        ("left", b"a", (b"x", 0)), 1, ("right", b"x", b"1"), ("left", b"a", None), 1,
        ("left", b"a", (b"x", 0)), ("right", b"x", None), "drain",
    ],
    "an end of belonging is overtaken by an update that belongs nowhere": [
        ("right", b"x", b"1"), ("left", b"a", (b"x", 0)), "drain",
        ("left", b"a", (None, 0)), ("left", b"a", (None, 1)), "drain",
    ],
    "a deletion of the left row is overtaken by a new row without a partner": [
        ("right", b"x", b"1"), ("left", b"a", (b"x", 0)), "drain",
        ("left", b"a", None), "commit", ("left", b"a", (b"x\xff", 0)), "drain",
    ],
}  # fmt: skip


@pytest.mark.parametrize("race", RACES)
def test_a_pair_does_not_stay_behind_when(race):
    """The answer that would end it is dropped for its version; another one must come."""
    cluster = Cluster("inner", cache_entries=0)
    for move in RACES[race]:
        if move == "drain":
            cluster.drain()
        else:
            cluster.run([move])
    assert cluster.table.get(b"a") is None


def test_a_version_is_not_given_out_again_by_the_next_owner():
    store, sent = MemoryStore(), []
    for number in range(3):
        left = LeftPartition(
            "left", store, how="inner", codecs=(ANY, ANY), foreign_key=lambda _: b"x",
            send=lambda *subscription: sent.append(subscription),
        )  # fmt: skip
        left.step(0, b"a", number, "value")
        cut = left.cut()
        store.write({"left": cut.changelog})  # as a restore does
    assert [version for _, _, version, *_ in sent] == [1, 2, 3]


def test_subscribers_come_in_key_order_whether_they_are_stored_or_not():
    right = RightPartition("right", MemoryStore(), chunk=5)
    for number in range(40):
        wish = Subscription(b"%02d" % number, 1, 0, ends=False, partition=0)
        right.subscribe(b"x", wish, 0)
        if number % 3 == 0:
            right._store.write(right.cut().store)
            right.committed()
    for number in range(1, 40, 7):
        right.subscribe(b"x", Subscription(b"%02d" % number, 2, 0, ends=False, partition=0), 0)
    for number in range(0, 40, 4):
        gone = Subscription(b"%02d" % number, 1, 0, ends=True, partition=0)
        right.subscribe(b"x", gone, 0)
    keys = [b"%02d" % number for number in range(40) if number % 4]
    assert [key for key, _, _ in right.update(b"x", b"1", 0)] == keys
    assert right.items() == [(b"x", key) for key in keys]


class Order(msgspec.Struct):
    product: str | None
    count: int = 1


class Product(msgspec.Struct):
    name: str


def declared(how="left", on=Order.product):
    app = App("foreign")
    orders = app.topic("orders", value_type=Order, key_type=str, compacting=True)
    products = app.topic("products", value_type=Product, key_type=str, compacting=True)
    out = app.topic("out", value_type=str, key_type=str, compacting=True)
    joined = app.ForeignKeyJoin("sold", orders, products, on=on, how=how)

    @app.agent(joined, sink=[out])
    async def tell(rows):
        async for row in rows:
            if row is None:
                yield None
            else:
                order, product = row
                yield f"{order.count} {product.name if product else '?'}"

    return app


def driver_of(app, lefts, rights):
    driver = Driver(app)
    driver.broker.create("orders", lefts)
    driver.broker.create("products", rights)
    return driver


def table_of(driver):
    """What a reader of the compacted output has in the end."""
    rows = {each.key: each.value for each in driver.read("out")}
    return {key: value for key, value in rows.items() if value is not None}


def test_rows_of_several_partitions_meet_and_go_out_by_the_left_key():
    with driver_of(declared(), 3, 4) as driver:
        for number in range(12):
            order = Order(f"p{number % 5}", number)
            driver.pipe("orders", key=f"o{number}", value=order, timestamp=number)
        for number in range(4):
            driver.pipe("products", key=f"p{number}", value=Product(f"n{number}"), timestamp=50)
        expected = {f"o{n}": f"{n} n{n % 5}" if n % 5 < 4 else f"{n} ?" for n in range(12)}
        assert table_of(driver) == expected
        assert len(driver.table("sold")) == 12
        assert len(driver.table("sold-right")) == 12


def test_a_method_of_the_stream_does_the_same():
    app = App("viewed")
    orders = app.topic("orders", value_type=Order, key_type=str, compacting=True)
    products = app.topic("products", value_type=Product, key_type=str, compacting=True)
    out = app.topic("out", value_type=str, key_type=str, compacting=True)
    rows = app.stream(orders).table_join(products, on=Order.product)
    rows.map(lambda row: row and row[1].name).to(out, name="tell")

    with driver_of(app, 2, 3) as driver:
        driver.pipe("products", key="p1", value=Product("n"), timestamp=1)
        driver.pipe("orders", key="o", value=Order("p1"), timestamp=2)
        assert table_of(driver) == {"o": "n"}
        driver.pipe("products", key="p1", timestamp=3)
        assert [each.value for each in driver.read("out")] == [None]
        assert "viewed-tell-table-join-products-answers" in driver.broker.counts


def test_a_table_can_be_joined_with_itself():
    app = App("selfish")
    staff = app.topic("staff", value_type=Order, key_type=str, compacting=True)  # product: the boss
    out = app.topic("out", value_type=str, key_type=str, compacting=True)
    led = app.ForeignKeyJoin("led", staff, staff, on=Order.product)

    @app.agent(led, sink=[out])
    async def tell(rows):
        async for row in rows:
            yield row and f"{row[0].count} under {row[1].count}"

    with Driver(app, partitions=3) as driver:
        for number in range(1, 8):  # each is led by half the number
            boss = f"s{number // 2}" if number > 1 else None
            driver.pipe("staff", key=f"s{number}", value=Order(boss, number))
        assert table_of(driver) == {f"s{n}": f"{n} under {n // 2}" for n in range(2, 8)}
        driver.pipe("staff", key="s1", value=Order(None, 100))
        assert table_of(driver) == {"s2": "2 under 100", "s3": "3 under 100"}


updates = st.lists(
    st.one_of(
        st.tuples(
            st.just("orders"),
            st.sampled_from(["o1", "o2", "o3", "o4"]),
            st.one_of(
                st.none(), st.builds(Order, st.sampled_from(["p1", "p2", "p3", None]), st.just(1))
            ),
        ),
        st.tuples(
            st.just("products"),
            st.sampled_from(["p1", "p2", "p3"]),
            st.one_of(st.none(), st.builds(Product, st.sampled_from(["x", "y"]))),
        ),
    ),
    min_size=1,
    max_size=20,
)


@pytest.mark.parametrize("how", ["inner", "left"])
@settings(max_examples=15)
@given(updates, st.integers(1, 5), st.booleans())
def test_a_restart_at_every_kth_record_changes_nothing_in_the_end(how, updates, every, keep):
    """Topics of different widths, batches, workers that die; the stores kept or lost."""
    with driver_of(declared(how), 2, 3) as driver:
        for start in range(0, len(updates), every):
            for topic, key, value in updates[start : start + every]:
                handle = driver.topic(topic)
                raw = None if value is None else handle.encode_value(value)
                driver.broker.produce(topic, key.encode(), raw, start)
            driver.settle()
            driver.crash()
            if not keep:
                driver.broker.stores.clear()
            driver.restart()
        table = table_of(driver)
    orders, products = ({k: v for t, k, v in updates if t == n} for n in ("orders", "products"))
    expected = {}
    for key, order in orders.items():
        product = order and products.get(order.product)
        if order is not None and (product is not None or how == "left"):
            expected[key] = f"1 {product.name if product else '?'}"
    assert table == expected


def test_a_foreign_key_that_cannot_be_had_is_a_dead_letter_and_the_row_stays_as_it_was():
    def product_of(order):
        if order.count == 13:
            raise ValueError("unlucky")
        return order.product

    with Driver(declared(on=product_of), partitions=3) as driver:
        driver.pipe("products", key="p", value=Product("n"), timestamp=1)
        driver.pipe("orders", key="o", value=Order("p", 1), timestamp=2)
        driver.pipe("orders", key="o", value=Order("p", 13), timestamp=3)
        driver.pipe("orders", key="q", value=Order("p", 2), timestamp=4)
        assert [each.key for each in driver.dead_letters("orders")] == [b"o"]
        assert table_of(driver) == {"o": "1 n", "q": "2 n"}
        driver.pipe("products", key="p", value=Product("m"), timestamp=5)
        assert table_of(driver) == {"o": "1 m", "q": "2 m"}


def test_its_topics_are_sized_by_what_they_are_read_with():
    app = declared()
    with driver_of(app, 2, 5) as driver:
        counts = driver.broker.counts
        assert counts["foreign-sold-answers"] == 2
        assert counts["foreign-sold-subscriptions"] == 5
        parts = [{topic.name for topic in part.inputs} for part in app.topology().parts]
        assert parts == [
            {"orders", "foreign-sold-answers"},
            {"products", "foreign-sold-subscriptions"},
        ]


def test_how_must_be_inner_or_left():
    with pytest.raises(ConfigError, match="neither inner nor left"):
        declared(how="outer")
