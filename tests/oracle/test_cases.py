"""The engine answers as Kafka Streams and Flink did: the recorded cases, row for row.

They lie beside the checkout (``../shared/oracle/cases``), not in it: where they do not, this is
skipped, and the property tests and unit tests of each kind of table are what holds the engine.
"""

import collections
import json
from pathlib import Path

import pytest

from tests.oracle import adapter

COLLECTION = Path(__file__).parents[3] / "shared" / "oracle" / "cases"
CASES = sorted(
    path.parent
    for topology in adapter.KIND
    for path in (COLLECTION / topology).glob("*/config.json")
)
if not CASES:
    pytest.skip(f"no recorded cases at {COLLECTION}", allow_module_level=True)

AT_THE_PEERS_LEISURE = {"ss_left", "ss_outer", "flink_tumble"}
"""When their rows come out is a quirk of the peer, or not known: rows are compared, not causes."""
ANY_ORDER = {"sliding", *(name for name in adapter.KIND if name.startswith("cep_"))}
"""Among the rows that one event causes, the peer promises no order."""
PROBES = [case for case in CASES if case.name.startswith(("p_", "r001", "r002"))]


def named(case):
    return f"{case.parent.name}/{case.name}"


def load(case):
    def lines(name):
        return [json.loads(line) for line in (case / name).read_text().splitlines() if line]

    return (
        json.loads((case / "config.json").read_text()),
        lines("input.jsonl"),
        lines("expected.jsonl"),
    )


def text(row, *without):
    return json.dumps({k: v for k, v in row.items() if k not in without}, sort_keys=True)


def in_order(topology, rows):
    """Return rows in the form in which they must be equal."""
    if topology in AT_THE_PEERS_LEISURE:
        return collections.Counter(text(row, "cause") for row in rows)
    if topology == "sliding":  # the peer may write a row twice for one event
        return {text(row) for row in rows}
    if topology in ANY_ORDER:
        return collections.Counter(text(row) for row in rows)
    return [text(row) for row in rows]


def check(case, **how):
    config, records, expected = load(case)
    topology = config["topology"]
    if any(row["topic"] == "error" for row in expected):
        pytest.skip("the peer crashed on it")
    try:
        got = adapter.run(topology, config, records, **how)
    except NotImplementedError as error:
        pytest.skip(str(error))
    for output in adapter.OUTPUTS(topology, config):
        ours, theirs = (
            in_order(topology, [row for row in rows if row["topic"] == output])
            for rows in (got, expected)
        )
        assert ours == theirs


@pytest.mark.parametrize("case", CASES, ids=named)
def test_a_recorded_case_comes_out_as_the_peer_had_it(case):
    check(case)


@pytest.mark.parametrize("keep_stores", [True, False], ids=["stores kept", "stores lost"])
@pytest.mark.parametrize(("every", "cache_entries"), [(1, 0), (3, 1)])
@pytest.mark.parametrize("case", PROBES, ids=named)
def test_workers_that_die_change_nothing(case, every, cache_entries, keep_stores):
    """A crash and a fresh worker after every few records, with tiny caches: the same rows."""
    check(case, every=every, keep_stores=keep_stores, cache_entries=cache_entries)
