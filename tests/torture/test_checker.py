"""The checker can fail: each doctored observation breaks the invariant that it should, by name."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path

import msgspec
import pytest

import agents
from agents.workload import Workload
from engine.testing import Driver
from engine.torture.checker import Evidence, Job, check
from engine.torture.observer import TABLES, Record, Seen
from engine.torture.stores import META, Store

PARTITIONS = 2


@pytest.fixture(scope="module")
def honest() -> Evidence:
    """What the engine really makes of 3,000 events, two of its commits long."""
    job = Job()
    work = Workload(events=3_000, users=20, seed=4)
    with Driver(agents.app, partitions=PARTITIONS, start_ms=work.end_ms) as driver:
        driver.pipe_many("user-profiles", work.profiles())
        events = list(work.raw_events())
        for number, (key, value, time) in enumerate(events):
            placed = None if key is not None else number % PARTITIONS
            driver.broker.produce("raw-events", key, value, time, (), placed)
            if number % 500 == 0:
                driver.settle()
        driver.settle()
        broker = driver.broker
    topics: dict[str, list[Record]] = defaultdict(list)
    for tp, log in sorted(broker.logs.items()):
        for offset, row in enumerate(log):
            if row is not None:
                key, value, time, headers = row
                topics[tp.topic].append(
                    Record(tp.partition, offset, key, value, time, dict(headers))
                )
    stores = []
    for task, held in broker.stores.items():
        tables = {name: dict(held.scan(name)) for name in TABLES}
        marks = dict(held.scan(META))
        known = {
            key.decode().removeprefix("changelog:"): int(value)
            for key, value in marks.items()
            if key.startswith(b"changelog:")
        }
        stores.append(Store(Path(task), int(task[-1]), known, tables))
    return Evidence(job, Seen(dict(topics)), stores)


@pytest.fixture
def evidence(honest: Evidence) -> Evidence:
    """A copy to doctor."""
    return deepcopy(honest)


def test_an_honest_run_passes(honest: Evidence) -> None:
    """And there is something of everything in it, so that there is something to find."""
    verdict = check(honest)
    assert not verdict.findings, str(verdict)
    assert verdict.events == 3_000
    for topic in ("enriched-events", "raw-events-dlq", "user-sessions", "event-counts"):
        assert len(honest.records(topic)) > 20, topic
    assert len(honest.records("conversions")) > 20
    assert all(store.tables["sessions"] for store in honest.stores)
    assert honest.seen.latest("clickstream-counts-changelog")


def lose_an_output(evidence: Evidence) -> None:
    del evidence.records("enriched-events")[7]


def lose_a_dead_letter(evidence: Evidence) -> None:
    del evidence.records("raw-events-dlq")[3]


def double_an_output(evidence: Evidence) -> None:
    records = evidence.records("enriched-events")
    records.append(records[7]._replace(offset=10**6))


def double_a_dead_letter(evidence: Evidence) -> None:
    records = evidence.records("raw-events-dlq")
    records.append(records[3]._replace(offset=10**6))


def invent_an_output(evidence: Evidence) -> None:
    records = evidence.records("enriched-events")
    made_up = records[0].value.replace(b'"id":"ev-', b'"id":"no-')
    records.append(records[0]._replace(offset=10**6, value=made_up))


def emit_a_session_twice(evidence: Evidence) -> None:
    records = evidence.records("user-sessions")
    records.append(records[0]._replace(offset=10**6))


def swap(records: list[Record]) -> None:
    """Exchange a record with the next one of its key."""
    for at, record in enumerate(records):
        for later in range(at + 1, len(records)):
            other = records[later]
            if (other.partition, other.key) == (record.partition, record.key):
                records[at] = other._replace(offset=record.offset)
                records[later] = record._replace(offset=other.offset)
                return


def lose_a_conversion(evidence: Evidence) -> None:
    del evidence.records("conversions")[4]


def double_a_conversion(evidence: Evidence) -> None:
    records = evidence.records("conversions")
    records.append(records[-1]._replace(offset=10**6))


def change_a_conversion(evidence: Evidence) -> None:
    records = evidence.records("conversions")
    value = records[0].value.replace(b'"seconds":', b'"seconds":1')
    records[0] = records[0]._replace(value=value)


def swap_conversions(evidence: Evidence) -> None:
    swap(evidence.records("conversions"))


def swap_outputs(evidence: Evidence) -> None:
    swap(evidence.records("enriched-events"))


def swap_sessions(evidence: Evidence) -> None:
    swap(evidence.records("user-sessions"))


def change_an_output(evidence: Evidence) -> None:
    records = evidence.records("enriched-events")
    gold = next(at for at, record in enumerate(records) if b'"tier":"gold"' in record.value)
    value = records[gold].value.replace(b'"tier":"gold"', b'"tier":"free"')
    records[gold] = records[gold]._replace(value=value)


def change_a_dead_letter(evidence: Evidence) -> None:
    records = evidence.records("raw-events-dlq")
    records[0] = records[0]._replace(value=b"something else")


def change_a_row(table: str) -> Callable[[Evidence], None]:
    def change(evidence: Evidence) -> None:
        records = evidence.records(f"clickstream-{table}-changelog")
        live = evidence.seen.latest(f"clickstream-{table}-changelog")
        at = max(n for n, r in enumerate(records) if (r.partition, r.key) in live and r.value)
        value = msgspec.msgpack.decode(records[at].value)
        value = value + 1 if table == "unmatched" else []
        records[at] = records[at]._replace(value=msgspec.msgpack.encode(value))

    change.__name__ = f"change_a_row_of_{table}"
    return change


def forget_a_tombstone(evidence: Evidence) -> None:
    records = evidence.records("clickstream-counts-changelog")
    last = {(record.partition, record.key): at for at, record in enumerate(records)}
    del records[next(at for at in last.values() if records[at].value is None)]


def close_a_session_without_a_word(evidence: Evidence) -> None:
    del evidence.records("user-sessions")[-1]


def leave_a_row_in_a_store(evidence: Evidence) -> None:
    evidence.stores[0].tables["counts"][b"left over"] = b""


def lose_a_row_of_a_store(evidence: Evidence) -> None:
    evidence.stores[1].tables["sessions"].popitem()


def lose_the_stores_of_a_partition(evidence: Evidence) -> None:
    del evidence.stores[0]


def let_a_store_run_ahead(evidence: Evidence) -> None:
    """It holds what was never committed: its last changes are not in the changelog."""
    del evidence.records("clickstream-unmatched-changelog")[-1]


@pytest.mark.parametrize(
    ("doctor", "broken", "figures"),
    [
        (lose_an_output, {"I1"}, (1, 0, 0)),
        (lose_a_dead_letter, {"I1"}, (1, 0, 0)),
        (double_an_output, {"I2"}, (0, 1, 0)),
        (double_a_dead_letter, {"I2"}, (0, 1, 0)),
        (invent_an_output, {"I2"}, (0, 1, 0)),
        (emit_a_session_twice, {"I2"}, (0, 1, 0)),
        (swap_outputs, {"I3"}, (0, 0, 0)),
        (swap_sessions, {"I3"}, (0, 0, 0)),
        (lose_a_conversion, {"I1"}, (1, 0, 0)),
        (double_a_conversion, {"I2"}, (0, 1, 0)),
        (swap_conversions, {"I3"}, (0, 0, 0)),
        (change_a_conversion, {"I4"}, (0, 0, 1)),
        (change_an_output, {"I4"}, (0, 0, 1)),
        (change_a_dead_letter, {"I4"}, (0, 0, 1)),
        (change_a_row("sessions"), {"I4"}, None),
        (forget_a_tombstone, {"I4"}, None),
        (change_a_row("unmatched"), {"I2", "I4"}, (0, 1, 2)),
        (close_a_session_without_a_word, {"I4"}, (0, 0, 1)),
        (leave_a_row_in_a_store, {"I4"}, (0, 0, 1)),
        (lose_a_row_of_a_store, {"I4"}, (0, 0, 1)),
        (lose_the_stores_of_a_partition, {"I4"}, (0, 0, 3)),
        (let_a_store_run_ahead, {"I1", "I4"}, None),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_doctored_observation_is_named_by_its_invariant(
    evidence: Evidence,
    doctor: Callable[[Evidence], None],
    broken: set[str],
    figures: tuple[int, int, int] | None,
) -> None:
    """Lost, duplicated and table differences are counted, and nothing else is blamed."""
    doctor(evidence)
    verdict = check(evidence)
    assert set(verdict.broken) == broken, str(verdict)
    if figures is not None:
        found = (verdict.lost, verdict.duplicated, verdict.table_differences)
        assert found == figures, str(verdict)


def test_an_input_that_is_there_twice_comes_out_twice(evidence: Evidence) -> None:
    """A sender's retry is no fault of the job's; one output for the two of them is."""
    raw, outputs = evidence.records("raw-events"), evidence.records("enriched-events")
    for at in range(20):  # what neither windows nor letters have anything to say about
        record = outputs[at]
        [source] = [r for r in raw if r.value and record.value[7:25] in r.value[:40]]
        raw.append(source._replace(offset=10**6 + at))
    verdict = check(evidence)
    assert verdict.lost == 20, str(verdict)
    outputs += [record._replace(offset=10**6 + at) for at, record in enumerate(outputs[:20])]
    again = check(evidence)
    assert (again.lost, again.duplicated) == (0, 0), str(again)
    assert "I3" not in again.broken, str(again)


def test_partitions_may_be_judged_one_by_one(honest: Evidence) -> None:
    """The same records go through, and the parts add up."""
    whole = check(honest)
    parts = list(by_partition(honest))
    for part in parts[1:]:
        parts[0].merge(part)
    assert parts[0] == whole


def by_partition(evidence: Evidence) -> Iterator:
    for number in range(PARTITIONS):
        topics = {
            topic: [record for record in records if record.partition == number]
            for topic, records in evidence.seen.topics.items()
        }
        stores = [store for store in evidence.stores if store.partition == number]
        yield check(Evidence(evidence.job, Seen(topics), stores))
