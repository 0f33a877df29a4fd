"""Outputs that the broker does not take: the event that made them is found, and only it goes."""

import re

import pytest
from aiokafka.record.memory_records import MemoryRecords

from engine import App
from engine.errors import AccessDenied, CommitRefused, CommitUnknown, RecordRefused, TaskStopped
from engine.kafka.produce import Refused
from engine.kafka.records import encode_batches, halves
from engine.record import TP
from engine.testing import Driver
from engine.testing.memory import MemoryOutlet


class Picky(MemoryOutlet):
    """Refuses a transaction with a record that it does not like, as a broker does: whole."""

    def __init__(self, broker, refuses):
        super().__init__(broker)
        self.refuses = refuses
        self.transactions = 0
        self.denied = ()

    async def commit(self, transaction):
        self.transactions += 1
        for tp, rows in transaction.rows.items():
            if tp.topic in self.denied:
                raise AccessDenied(f"no permission to write to {tp.topic}", [tp.topic])
            for index, (_, value, *_) in enumerate(rows):
                if self.refuses(tp, value):
                    raise RecordRefused("no", tp=tp, index=index, reason=f"too large for {tp}")
        return await super().commit(transaction)


def started(driver, refuses):
    """Let a Driver's worker start over on a picky broker."""
    picky = Picky(driver.broker, refuses)
    driver.crash()
    driver.wrap = lambda edges: edges._replace(outlet=picky)
    driver.restart()
    return picky


def job(**options):
    """Echoes numbers, and keeps their sum; "bad" numbers are those that make a record too large."""
    app = App("job")
    numbers = app.topic("numbers", value_type=int, key_type=str)
    total = app.Table("total", default=int, key_type=str)

    @app.agent(numbers, sink=[app.topic("out", value_type=int)], **options)
    async def echo(stream):
        async for key, number in stream.items():
            total[key] += number
            yield number

    return app


def pipe(driver, numbers, partition=0):
    driver.pipe_many(
        "numbers", [("k", number, i) for i, number in enumerate(numbers)], partition=partition
    )


def out(driver, partition=0):
    return [int(value) for _, value, *_ in driver.raw("out", partition)]


def too_large(tp, value):
    return tp.topic == "out" and value in {b"313", b"614"}


def test_the_events_behind_refused_outputs_are_found_and_buried():
    """Two of 1,000, in a few transactions; their neighbours, of other tasks too, are there once."""
    with Driver(job(), partitions=2) as driver:
        picky = started(driver, too_large)
        for number in range(100):
            driver.broker.produce("numbers", b"k", b"%d" % number, 0, partition=1)
        pipe(driver, range(1000))
        letters = driver.dead_letters("numbers")
        assert [letter.value for letter in letters] == [b"313", b"614"]
        assert letters[0].header("__streams.errors.exception") == "RecordRefused"
        assert letters[0].header("__streams.errors.offset") == "313"
        said = "what agent echo made of it is refused: too large for out[0]"
        assert letters[0].header("__streams.errors.message") == said
        assert out(driver) == [n for n in range(1000) if n not in {313, 614}]
        assert out(driver, 1) == list(range(100))
        assert dict(driver.table("total"))["k"] is not None
        assert picky.transactions < 80
        assert driver._engine.assignment.verdicts.quotas == {}


def test_an_event_behind_a_refused_changelog_record_is_found_too():
    """Its state would be too large: the state stays as it was before."""
    app = App("grows")
    words = app.topic("words", value_type=str, key_type=str)
    texts = app.Table("texts", default=str, key_type=str, value_type=str)

    @app.agent(words)
    async def grow(stream):
        async for key, word in stream.items():
            texts[key] += word

    with Driver(app) as driver:
        started(driver, lambda tp, value: "changelog" in tp.topic and len(value) > 100)
        driver.pipe_many(words, [("a", f"{n};", n) for n in range(20)] + [("a", "x" * 99, 30)]
                         + [("b", "y", 31)])  # fmt: skip
        assert dict(driver.table(texts))["a"] == "".join(f"{n};" for n in range(20))
        assert dict(driver.table(texts))["b"] == "y"
        assert [letter.value for letter in driver.dead_letters(words)] == [b"x" * 99]


@pytest.mark.parametrize("within", [None, 1])
def test_an_event_in_a_refused_chunk_is_found(within):
    """A chunk's output is too large because of one of its events."""
    app = App("chunks")
    numbers = app.topic("numbers", value_type=int, key_type=str)

    @app.agent(numbers, sink=[app.topic("out", value_type=list[int])])
    async def chunks(stream):
        async for chunk in stream.take(5, within=within):
            yield chunk

    with Driver(app) as driver:
        started(driver, lambda tp, value: tp.topic == "out" and b"13" in value)
        pipe(driver, range(23))
        driver.advance(3)
        assert [letter.value for letter in driver.dead_letters("numbers")] == [b"13"]
        pipe(driver, range(30, 40))
        driver.advance(3)
        values = [value for _, value, *_ in driver.raw("out")]
        found = [int(n) for value in values for n in value.strip(b"[]").split(b",")]
        right = [*(n for n in range(23) if n != 13), *range(30, 40)]
        assert found == right[: len(found)]
        assert len(found) > len(right) - (5 if within is None else 1)


def test_the_policy_is_the_agents():
    """``skip`` writes no dead letter; ``stop`` stops the task, and the other one goes on."""
    with Driver(job(on_error="skip")) as driver:
        started(driver, too_large)
        pipe(driver, [1, 313, 2])
        assert out(driver) == [1, 2]
        assert driver.dead_letters("numbers") == []
    with Driver(job(on_error="stop"), partitions=2) as driver:
        started(driver, too_large)
        driver.broker.produce("numbers", b"k", b"5", 0, partition=1)
        with pytest.raises(TaskStopped, match=r"what agent echo made of numbers\[0\]@1 is refused"):
            pipe(driver, [1, 313, 2])
        assert (out(driver), out(driver, 1)) == ([1], [5])


def test_a_window_whose_result_is_refused_stops_its_task():
    """Every later event would close it again: they must not all become dead letters."""
    app = App("windows")
    numbers = app.topic("numbers", value_type=int, key_type=str)
    counted = app.topic("counted", value_type=int, key_type=str)
    counts = app.Table("counts", default=int, key_type=str).tumbling(0.010, sink=counted)

    @app.agent(numbers)
    async def count(stream):
        async for event in stream.events():
            counts[event.key] += 1

    with Driver(app) as driver:
        started(driver, lambda tp, value: tp.topic == "counted" and value == b"5")
        with pytest.raises(TaskStopped, match="Let counted take larger records"):
            driver.pipe_many(numbers, [("k", 1, n) for n in range(5)]
                             + [("k", 1, n) for n in range(15, 50)])  # fmt: skip
        assert len(driver.dead_letters("numbers")) <= 3


def test_a_missing_permission_is_waited_for():
    """The task waits, longer each time; once the permission is there all is done, once."""
    with Driver(job()) as driver:
        picky = started(driver, lambda *_: False)
        picky.denied = {"out"}
        pipe(driver, [1, 2])
        driver.advance(10)
        parked = driver._engine.assignment.parking.parked
        assert [str(p.error) for p in parked.values()] == ["no permission to write to out"]
        assert b'headrace_tasks_parked{why="waiting"} 1.0' in driver._engine.metrics.text()
        assert picky.transactions == 4  # at 0, 1, 3 and 7 s
        picky.denied = ()
        driver.advance(10)
        assert out(driver) == [1, 2]
        assert driver.dead_letters("numbers") == []


def test_a_dead_letter_that_is_refused_stops_its_task():
    """There is nowhere else to put it."""
    with Driver(job()) as driver:
        started(driver, lambda tp, _: tp.topic == "numbers-dlq")
        with pytest.raises(TaskStopped, match="Let numbers-dlq take larger records"):
            driver.pipe("numbers", key="k", value=b"no number")


@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [
        (22, CommitRefused, "not the owner any more .*ILLEGAL_GENERATION"),
        (82, CommitRefused, "FENCED_INSTANCE_ID"),
        (90, CommitRefused, "PRODUCER_FENCED"),
        (120, CommitUnknown, "given the transaction up .*TRANSACTION_ABORTABLE"),
        (45, CommitUnknown, "OUT_OF_ORDER_SEQUENCE_NUMBER"),
        (49, CommitUnknown, "INVALID_PRODUCER_ID_MAPPING"),
        (29, AccessDenied, "no permission on topic out"),
        (30, AccessDenied, "no permission to commit .*GROUP_AUTHORIZATION_FAILED"),
        (10, RecordRefused, "MESSAGE_TOO_LARGE"),
        (9_999, RecordRefused, "Kafka error 9999"),
    ],
)
def test_a_code_of_kafkas_says_what_to_do(code, kind, says):
    error = Refused("produce", code, TP("out", 1), 7).as_error()
    assert type(error) is kind
    assert re.search(says, str(error))


def test_halves_go_on_where_the_other_ends():
    """Sequence numbers, places and records: as in the batch that was refused."""
    rows = [(b"k%d" % n, b"v" * 50, n, ()) for n in range(11)]

    def encode(some, **how):
        return encode_batches(some, 0, producer=(1, 2), transactional=True, **how)

    [whole] = encode(rows, sequence=100)
    waiting, found = [whole], []
    while waiting:
        batch = waiting.pop(0)
        if batch.count > 1:
            waiting = halves(batch, rows, encode, 100) + waiting
            continue
        [record] = list(MemoryRecords(batch.data).next_batch())
        found.append((batch.start, record.key, record.timestamp))
        assert int.from_bytes(batch.data[53:57], "big") == 100 + batch.start  # its base sequence
    assert found == [(n, b"k%d" % n, n) for n in range(11)]
