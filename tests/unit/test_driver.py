"""The whole engine in memory: crashes, failing agents, dead letters. Nothing is lost or doubled."""

import asyncio
from collections import Counter

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from engine import App, Contract
from engine.errors import CommitRefused, CommitUnknown, ConfigError, ContextError, TaskStopped
from engine.testing import Driver
from engine.testing.memory import MemoryOutlet
from tables.errors import StoreCorrupted
from tables.memory import MemoryStore


class Click(msgspec.Struct):
    """What a user did."""

    user: str
    n: int


def values(driver, topic):
    return [row.value for row in driver.read(topic)]


async def steps(driver, count):
    """Go round a few times: in the middle of anything."""
    for _ in range(count):
        await driver._engine.step()


def push(driver, records, topic="clicks"):
    """Put records into the topic without letting the app work."""
    for user, n, ts in records:
        value = msgspec.json.encode({"user": user, "n": n}) if n >= 0 else b"broken"
        driver.broker.produce(topic, user.encode(), value, ts)


# --- a main job in small -------------------------------------------------------------------------


class Job:
    """Joins, counts, sessionises, re-keys, buffers; has dead letters; keeps what came out."""

    def __init__(self):
        app = self.app = App("job", commit_interval_ms=1)
        clicks = app.topic(
            "clicks", contract=Contract.of("clicks", Click, key_type=str, key_required=True)
        )
        users = app.Table("users", source=app.topic("users", key_type=str, compacting=True))
        enriched = app.topic("enriched", key_type=str)
        chunks = app.topic("chunks", value_type=list[int], key_type=str)
        counted = app.topic("counted", value_type=int, key_type=str)
        seen = app.topic("sessions", value_type=int, key_type=str)
        totals = app.Table("totals", default=int, key_type=str)
        by_number = app.Table("by-number", default=int)
        counts = app.Table("counts", default=int, key_type=str).tumbling(0.010, sink=counted)
        sessions = app.SessionTable(
            "visits", gap=0.005, key_type=str, initial=int, sink=seen,
            reduce=lambda count, _: count + 1, merge=lambda one, other: one + other,
        )  # fmt: skip

        @app.agent(clicks, sink=[enriched])
        async def enrich(stream):
            async for click, user in stream.join(users, how="left"):
                totals[click.user] += click.n
                yield [click.user, click.n, user, totals[click.user]]

        @app.agent(clicks)
        async def windows(stream):
            async for click in stream:
                counts[click.user] += 1
                sessions.update(click.user, click)

        @app.agent(clicks, sink=[chunks])
        async def buffer(stream):
            async for chunk in stream.take(3):
                yield [click.n for click in chunk]

        @app.agent(clicks)
        async def move(stream):
            async for click in stream.group_by(lambda click: click.n % 3, name="n"):
                by_number[click.n % 3] += 1

        self.outputs = ("enriched", "chunks", "counted", "sessions", "clicks-dlq")
        self.tables = ("totals", "by-number", "counts", "visits")

    def results(self, driver):
        driver.settle()
        rows = {}
        for topic in self.outputs:
            rows[topic] = [
                (number, key, value, ts)
                for number in range(driver.broker.counts[topic])
                for key, value, ts, _ in driver.raw(topic, number)
            ]
        return rows, {name: sorted(driver.table(name)) for name in self.tables}


clicks = st.lists(
    st.tuples(st.sampled_from("abcde"), st.integers(-1, 9), st.integers(0, 60)), max_size=25
)
# how many records come, how many rounds the worker then goes, and how it ends
phases = st.lists(
    st.tuples(
        st.integers(1, 6),
        st.integers(0, 6),
        st.sampled_from(["crash", "lose the disk", "commit and crash", "nothing"]),
    ),
    max_size=8,
)


def prepared(partitions):
    job = Job()
    driver = Driver(job.app, partitions=partitions)
    for user in "abc":
        driver.broker.produce("users", user.encode(), b'"%s"' % user.encode(), 0)
    return job, driver


def through(clicks, phases, partitions):
    """Return what comes out of a run that is interrupted like this."""
    job, driver = prepared(partitions)
    with driver:
        at = 0
        for count, rounds, end in phases:
            push(driver, clicks[at:][:count])
            at += count
            driver._run(steps(driver, rounds))
            if end == "commit and crash":
                driver._run(commit(driver))
            if end != "nothing":
                driver.crash()
                if end == "lose the disk":
                    driver.broker.stores.clear()
                driver.restart()
        push(driver, clicks[at:])
        return job.results(driver)


async def commit(driver):
    """Begin a commit and do not wait for its end."""
    await driver._engine.checkpoint.begin(driver._engine.assignment.working())


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(clicks, phases, st.sampled_from([1, 3]))
@example([("a", n, 5 * n) for n in range(9)], [(2, n, "crash") for n in range(6)], 1)
def test_crashes_anywhere_change_nothing(clicks, phases, partitions):
    """Every output, in order, per partition; every table; every dead letter: exactly once."""
    assert through(clicks, phases, partitions) == through(clicks, [], partitions)


class Doubtful(MemoryOutlet):
    """A producer whose commits fail as told: refused, or unknown with or without effect."""

    plan: list[str]

    async def commit(self, transaction):
        what = self.plan.pop(0) if self.plan else "fine"
        if what == "refused":
            raise CommitRefused("the coordinator says no")
        if what == "lost":
            raise CommitUnknown("no answer")
        ends = await super().commit(transaction)
        if what == "done, but nobody knows":
            raise CommitUnknown("no answer")
        return ends


OUTCOMES = ["fine", "refused", "lost", "done, but nobody knows"]


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(clicks, st.lists(st.sampled_from(OUTCOMES), max_size=8), st.integers(1, 5))
@example([("a", n, 5 * n) for n in range(9)], OUTCOMES[::-1], 2)
def test_commits_that_fail_change_nothing(clicks, plan, size):
    job, driver = prepared(2)
    with driver:
        engine = driver._engine
        outlet = Doubtful(driver.broker)
        outlet.plan = []
        driver._run(outlet.open())
        edges = engine.edges._replace(outlet=outlet)
        engine.edges = edges
        engine.checkpoint = type(engine.checkpoint)(edges, engine.metrics)
        engine.assignment._edges = edges
        outlet.plan = list(plan)
        for at in range(0, len(clicks), size):
            push(driver, clicks[at:][:size])
            driver._run(work(driver))
        outlet.plan = []
        driver._run(work(driver))
        got = job.results(driver)
    assert sorted_by_key(got) == sorted_by_key(through(clicks, [], 2))


async def work(driver):
    """Go round and commit, as a worker does; doubts are answered by the loop."""
    for _ in range(12):
        driver.clock.move_to(driver.clock.now_ms() + 10)
        await driver._engine.step()
        await asyncio.sleep(0)


def sorted_by_key(results):
    rows, tables = results
    return {topic: sorted(rows[topic], key=repr) for topic in rows}, tables


# --- agents that raise ---------------------------------------------------------------------------


def failing(on_error, retries=0, fails=None, **options):
    """An agent that raises on n == 3, after it has changed a table and emitted."""
    app = App("failing")
    topic = app.topic("clicks", value_type=Click, key_type=str)
    out, side = app.topic("out", value_type=int), app.topic("side", value_type=int)
    table = app.Table("t", default=int)
    calls = []

    @app.agent(topic, sink=[out], on_error=on_error, retries=retries, **options)
    async def agent(stream):
        async for click in stream:
            calls.append(click.n)
            table["sum"] += click.n
            await side.send(value=click.n)
            yield click.n
            if click.n == 3 and (fails is None or calls.count(3) <= fails):
                raise ZeroDivisionError("a secret")

    return app, topic, table, calls


CLICKS = [("k", Click("u", n), n) for n in (1, 2, 3, 4)]


@pytest.mark.parametrize("on_error", ["dead_letter", "skip"])
def test_an_event_that_an_agent_cannot_bear_leaves_no_trace_but_a_dead_letter(on_error):
    app, topic, table, calls = failing(on_error)
    with Driver(app) as driver:
        driver.pipe_many(topic, CLICKS, headers=(("h", b"1"),))
        assert values(driver, "out") == [b"1", b"2", b"4"] or values(driver, "out") == []
        assert [int(v) for _, v, *_ in driver.raw("out")] == [1, 2, 4]
        assert [int(v) for _, v, *_ in driver.raw("side")] == [1, 2, 4]
        assert driver.table(table) == [("sum", 7)]
        dead = driver.dead_letters(topic)
        assert calls.count(3) == 1
        driver.pipe_many(topic, [("k", Click("u", 5), 9)])
        assert driver.table(table) == [("sum", 12)]
    if on_error == "skip":
        assert dead == []
        return
    [row] = dead
    assert (row.value, row.timestamp) == (b'{"user":"u","n":3}', 3)
    assert row.header("h") == "1"
    assert row.header("__streams.errors.exception") == "ZeroDivisionError"
    assert row.header("__streams.errors.message") == "agent agent raised"
    assert row.header("__streams.errors.offset") == "2"
    assert row.header("__contract.rule") == "agent.agent"
    assert not any(b"secret" in value for _, value in row.headers)


@pytest.mark.parametrize(("retries", "fails", "dead"), [(2, 2, 0), (2, 3, 1), (0, 1, 1), (1, 1, 0)])
def test_an_event_is_tried_again_before_it_is_given_up(retries, fails, dead):
    app, topic, table, calls = failing("dead_letter", retries=retries, fails=fails)
    with Driver(app) as driver:
        driver.pipe_many(topic, CLICKS)
        assert calls.count(3) == min(fails, retries) + (0 if dead else 1) + (fails > retries)
        assert len(driver.dead_letters(topic)) == dead
        assert driver.table(table) == [("sum", 7 if dead else 10)]
        assert [int(v) for _, v, *_ in driver.raw("out")] == ([1, 2, 4] if dead else [1, 2, 3, 4])


def test_a_task_may_be_stopped_by_an_event():
    app, topic, _, _ = failing("stop")
    wanted = r"0_0 is stopped: agent agent raised ZeroDivisionError on clicks\[0\]@2\. on_error"
    with pytest.raises(TaskStopped, match=wanted), Driver(app) as driver:
        driver.pipe_many(topic, CLICKS)
    assert driver.raw("out") == []  # nothing of it was committed
    assert [at.offset for at in driver.broker.committed.values()] == [0]


def test_an_agent_that_fails_does_not_disturb_its_neighbour():
    """Two agents on one topic: the other's work is rolled back too, and done again once."""
    app, topic, _, _ = failing("dead_letter")
    other = app.topic("other", value_type=int)

    @app.agent(topic, sink=[other])
    async def neighbour(stream):
        async for click in stream:
            yield click.n

    with Driver(app) as driver:
        driver.pipe_many(topic, CLICKS)
        assert [int(v) for _, v, *_ in driver.raw("out")] == [1, 2, 4]
        assert [int(v) for _, v, *_ in driver.raw("other")] == [1, 2, 3, 4]


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 5)), max_size=6))
@example([(1, 0), (1, 3), (2, 4)])
def test_a_dead_letter_of_an_agent_is_written_once_whatever_crashes(phases):
    """A worker that crashes forgets which event was poison and finds out again."""
    app, topic, table, _ = failing("dead_letter")
    clicks = [("k", n, n) for n in (1, 3, 2, 3, 5, 3, 4, 3)]
    with Driver(app, commit_interval_ms=1) as driver:
        at = 0
        for count, rounds in phases:
            push(driver, clicks[at:][:count])
            at += count
            driver._run(slow_steps(driver, rounds))
            driver.crash()
            driver.restart()
        push(driver, clicks[at:])
        driver.settle()
        assert [int(v) for _, v, *_ in driver.raw("out")] == [1, 2, 5, 4]
        assert len(driver.dead_letters(topic)) == 4
        assert driver.table(table) == [("sum", 12)]


async def slow_steps(driver, count):
    """Go round a few times with commits in between."""
    for _ in range(count):
        driver.clock.move_to(driver.clock.now_ms() + 10)
        await driver._engine.step()


@pytest.mark.parametrize("waits_at", [1, 2, 4])
def test_a_dead_letter_of_an_agent_is_committed_with_its_own_event(waits_at):
    """A commit in the middle of the run, then a crash: it is neither written twice nor lost."""
    app = App("poison")
    topic = app.topic("clicks", value_type=Click, key_type=str)
    gates = []

    @app.agent(topic)
    async def agent(stream):
        async for click in stream:
            if click.n == 3:
                raise ZeroDivisionError
            if click.n == waits_at and gates:
                await gates[0].wait()

    async def commit_in_the_middle(driver):
        engine = driver._engine
        while not engine.assignment.verdicts.poison:
            await engine.step()
        gates.append(asyncio.Event())
        await steps(driver, 5)
        committing = asyncio.create_task(hold_and_commit(engine))
        await asyncio.sleep(0.01)
        gates[0].set()
        await committing

    with Driver(app) as driver:
        push(driver, [("k", n, 0) for n in (1, 2, 3, 4, 5)])
        driver._run(commit_in_the_middle(driver))
        driver.crash()
        driver.restart()
        assert len(driver.dead_letters(topic)) == 1
        assert driver._engine.assignment.verdicts.poison == {}  # nothing is remembered for ever


@pytest.mark.parametrize("first", ["strict", "lenient"])
def test_a_contract_that_changes_in_the_middle_of_a_run_neither_loses_nor_doubles(first):
    """Dead letters and agents are cut at the same event: others may go on, differently."""
    strict = [first == "strict"]

    def decode(raw):
        number = int(raw)
        if strict[0] and number in {1, 4}:
            raise ValueError("the strict version does not take it")
        return number

    app = App("versions")
    contract = Contract(name="numbers", decode=decode, encode=lambda n: b"%d" % n)
    topic = app.topic("numbers", contract=contract)
    seen = app.topic("seen", value_type=int)
    gate = []

    @app.agent(topic, sink=[seen])
    async def agent(stream):
        async for number in stream:
            if number == 2 and gate:
                await gate[0].wait()
            yield number

    async def commit_in_the_middle(driver):
        gate.append(asyncio.Event())
        await steps(driver, 5)
        committing = asyncio.create_task(hold_and_commit(driver._engine))
        await asyncio.sleep(0.01)
        gate[0].set()
        await committing

    with Driver(app) as driver:
        for number in range(6):
            driver.broker.produce("numbers", None, b"%d" % number, 0)
        driver._run(commit_in_the_middle(driver))
        strict[0] = not strict[0]
        driver.crash()
        driver.restart()
        driver.settle()
        buried = [int(letter.value) for letter in driver.dead_letters(topic)]
        assert sorted([*buried, *(record.value for record in driver.read(seen))]) == list(range(6))
        assert buried == ([1] if first == "strict" else [4])


async def hold_and_commit(engine):
    """Commit between two events, in the middle of a run."""
    await engine.checkpoint.begin(engine.assignment.working(), wait_s=1)
    await engine.checkpoint.landed()


# --- stores --------------------------------------------------------------------------------------


class Damaged(MemoryStore):
    """A store with a block that cannot be read, until it is wiped."""

    broken = False

    def get(self, family, key):
        if self.broken:
            raise StoreCorrupted("somewhere", "block checksum mismatch")
        return super().get(family, key)

    def clear(self):
        super().clear()
        self.broken = False


def test_a_store_that_cannot_be_read_is_rebuilt_and_no_event_is_blamed():
    app = App("damaged")
    topic = app.topic("clicks", value_type=Click, key_type=str)
    totals = app.Table("totals", default=int, key_type=str, cache_entries=0)

    @app.agent(topic)
    async def count(stream):
        async for click in stream:
            totals[click.user] += click.n

    driver = Driver(app)
    store = driver.broker.stores["0_0"] = Damaged()
    with driver:
        driver.pipe_many(topic, [(None, Click("a", 1), 0), (None, Click("b", 2), 0)])
        driver.crash()
        driver.restart()
        store.broken = True
        driver.pipe_many(topic, [(None, Click("a", 10), 0)])
        assert not store.broken
        assert driver.table(totals) == [("a", 11), ("b", 2)]
        assert driver.dead_letters(topic) == []


def test_a_table_that_is_ahead_of_a_slow_reader_is_restored_to_where_it_was():
    """An agent holds back events of a table's topic; the disk is lost meanwhile."""
    app = App("ahead")
    topic = app.topic("users", key_type=str, compacting=True)
    users = app.Table("users", source=topic)
    clicks = app.topic("clicks", value_type=Click, key_type=str)
    out = app.topic("out")

    @app.agent(topic)
    async def hoard(stream):
        async for _ in stream.take(100):
            pass

    @app.agent(clicks, sink=[out])
    async def join(stream):
        async for _, user in stream.join(users, how="left"):
            yield user

    with Driver(app) as driver:
        for n in range(3):
            driver.pipe(topic, key="k", value={"n": n}, timestamp=n)
        driver.crash()
        driver.broker.stores.clear()
        driver.restart()
        driver.pipe(clicks, key="k", value=Click("k", 1), timestamp=5)
        assert values(driver, out) == [{"n": 2}]


# --- keys and times that nobody can read ---------------------------------------------------------


def test_a_key_that_a_table_cannot_read_is_a_dead_letter():
    app = App("keys")
    topic = app.topic("users", key_type=int, compacting=True)
    users = app.Table("users", source=topic)

    @app.agent(app.topic("clicks", value_type=Click))
    async def use(stream):
        async for _ in stream:
            users.get(1)

    with Driver(app) as driver:
        driver.pipe(topic, key=b"not a number", value={"n": 0})
        driver.pipe(topic, key=b"1", value={"n": 1})
        assert driver.table(users) == [(1, {"n": 1})]
        [dead] = driver.dead_letters(topic)
        assert dead.header("__contract.rule") == "key.type"
        assert dead.header("__contract.field") == "key"
        driver.crash()
        driver.broker.stores.clear()
        driver.restart()
        assert driver.table(users) == [(1, {"n": 1})]
        assert driver.dead_letters(topic) == []


# --- the Driver itself ---------------------------------------------------------------------------


def simple():
    app = App("simple")
    topic = app.topic("clicks", value_type=Click, key_type=str)
    table = app.Table("t", default=int)

    @app.agent(topic, sink=[app.topic("out", value_type=int)])
    async def agent(stream):
        async for click in stream:
            table[click.user] += click.n
            yield click.n

    return app, topic, table


def test_it_reads_what_has_come_since_the_last_look():
    app, topic, _ = simple()
    with Driver(app) as driver:
        driver.pipe_many(topic, CLICKS[:2])
        assert values(driver, "out") == [1, 2]
        assert values(driver, "out") == []
        driver.pipe_many(topic, CLICKS[2:])
        assert values(driver, app.topic_named("out")) == [3, 4]


def test_what_is_committed_survives_and_nothing_else():
    app, topic, table = simple()
    with Driver(app) as driver:
        driver.pipe_many(topic, CLICKS)
        push(driver, [("k", 9, 9)])
        driver._run(steps(driver, 1))
        driver.crash()
        assert [int(v) for _, v, *_ in driver.raw("out")] == [1, 2, 3, 4]
        driver.restart()
        assert [int(v) for _, v, *_ in driver.raw("out")] == [1, 2, 3, 4, 9]
        assert driver.table(table) == [("u", 10), ("k", 9)] or dict(driver.table(table)) == {
            "u": 10,
            "k": 9,
        }


def test_it_says_what_is_wrong():
    app, topic, table = simple()
    driver = Driver(app)
    with pytest.raises(ConfigError, match="with statement"):
        driver.settle()
    with driver:
        with pytest.raises(ConfigError, match=r"crash\(\) it first"):
            driver.restart()
        with pytest.raises(ContextError, match="inside an agent"):
            table.get("k")
        driver.crash()
        with pytest.raises(AssertionError, match="not running"):
            driver.pipe_many(topic, CLICKS)
        driver.restart()


def test_it_is_no_place_for_another_event_loop():
    app, topic, _ = simple()

    async def inside(driver):
        driver.pipe_many(topic, CLICKS)

    with Driver(app) as driver, pytest.raises(ConfigError, match="plain function"):
        asyncio.run(inside(driver))


def test_values_of_any_kind_can_be_piped():
    app = App("any")
    topic = app.topic("in", key_type=int)
    seen = []

    @app.agent(topic)
    async def agent(stream):
        async for key, value in stream.items():
            seen.append((key, value))

    with Driver(app) as driver:
        driver.pipe("in", key=1, value={"a": [1]})
        driver.pipe(topic, key=b"2", value=b'"raw"')
        driver.pipe(topic, key=3, value=Click("u", 1))
        driver.pipe(topic, key=4, value=None)
        assert [row.value for row in driver.dead_letters(topic)] == [None]
    assert seen == [(1, {"a": [1]}), (2, "raw"), (3, {"user": "u", "n": 1})]


def test_partitions_are_chosen_as_kafka_chooses_them():
    app, topic, _ = simple()
    with Driver(app, partitions=12) as driver:
        for key in ("abc", "foobar", "21"):
            driver.pipe(topic, key=key, value=Click("u", 1))
        homes = {row.partition for row in driver.read("out")}
        assert homes == {
            479470107 % 12,
            (-790332482 & 0x7FFFFFFF) % 12,
            (-973932308 & 0x7FFFFFFF) % 12,
        }


def test_counts_add_up_over_partitions():
    app, topic, table = simple()
    with Driver(app, partitions=5) as driver:
        for n in range(50):
            driver.pipe(topic, key=f"k{n}", value=Click("u", 1))
        assert sum(count for _, count in driver.table(table)) == 50
        assert Counter(row.partition for row in driver.read("out")).total() == 50
