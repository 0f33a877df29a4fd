"""The engine answers as Kafka Streams did: the recorded cases, row for row.

``tests/golden`` holds a few cases of each topology. Where a checkout has the whole collection
beside it (``../shared/oracle/cases``), all of it is run too.
"""

import json
from pathlib import Path

import pytest

from tests.oracle import adapter

GOLDEN = Path(__file__).parents[1] / "golden"
COLLECTION = Path(__file__).parents[3] / "shared" / "oracle" / "cases"
TOPOLOGIES = (*adapter.WINDOWED, *adapter.JOINED)


def cases_in(home):
    return sorted(
        path.parent
        for topology in TOPOLOGIES
        for path in (home / topology).glob("*/config.json")
        if json.loads(path.read_text())["params"].get("versioned_history_ms") is None
    )


def named(case):
    return f"{case.parent.name}/{case.name}"


def load(case):
    def lines(name):
        return [json.loads(line) for line in (case / name).read_text().splitlines() if line]

    config = json.loads((case / "config.json").read_text())
    return config, lines("input.jsonl"), lines("expected.jsonl")


def by_output(rows, outputs):
    return {output: [row for row in rows if row["topic"] == output] for output in outputs}


def check(case):
    config, records, expected = load(case)
    topology = config["topology"]
    outputs = adapter.OUTPUTS(topology, config)
    got = adapter.run(topology, config, records)
    assert by_output(got, outputs) == by_output(expected, outputs)


@pytest.mark.parametrize("case", cases_in(GOLDEN), ids=named)
def test_a_recorded_case_comes_out_as_kafka_streams_had_it(case):
    check(case)


@pytest.mark.slow
@pytest.mark.parametrize("case", cases_in(COLLECTION), ids=named)
def test_every_recorded_case_at_hand_comes_out_too(case):
    check(case)


WINDOW_CASES = [case for case in cases_in(GOLDEN) if case.parent.name in adapter.WINDOWED]


@pytest.mark.parametrize("case", WINDOW_CASES, ids=named)
def test_batches_tiny_caches_and_crashes_change_nothing(case):
    """One batch, or a crash and a fresh worker after every few records: the same rows come out."""
    config, records, expected = load(case)
    topology = config["topology"]
    expected = by_output([without_cause(row) for row in expected], ["updates", "final"])
    for every, cache_entries in ((len(records), 200_000), (3, 1), (1, 0)):
        app = adapter.app_for(topology, config, cache_entries=cache_entries)
        got = list(run_in_pieces(app, records, every))
        assert by_output(got, ["updates", "final"]) == expected


def without_cause(row):
    return {name: value for name, value in row.items() if name != "cause"}


def run_in_pieces(app, records, every):
    with adapter.Driver(app, window_headers=True) as driver:
        for start in range(0, len(records), every):
            driver.pipe_many(
                "in", [(r["key"], r["value"], r["ts"]) for r in records[start:][:every]]
            )
            for output in ("updates", "final"):
                yield from (without_cause(adapter.row(0, each)) for each in driver.read(output))
            driver.crash()
            if start % 2:  # the disk is gone too: all comes from the changelogs
                driver.broker.stores.clear()
            driver.restart()
