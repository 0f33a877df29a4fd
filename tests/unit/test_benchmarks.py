"""The benchmarks' arithmetic: what a job has to make of its input, rates, ratios, tables."""

import importlib
from collections import Counter
from pathlib import Path

import msgspec
import pytest

import benchmarks
from agents.workload import Workload
from benchmarks import checks, report
from benchmarks.__main__ import QUICK, options
from benchmarks.engines import ENGINES
from benchmarks.jobs import JOBS, Recomputation, closing_events, sessions_of
from benchmarks.latency import Figures, percentile
from benchmarks.rounds import Drained, Look, Round
from engine.torture import oracle

MIN = 60_000
NAMES = {each.stem for each in Path(benchmarks.__file__).parent.glob("[!_]*.py")}
MODULES = sorted(NAMES - {"replica_app"})  # an app, which asks for its group
WORK = Workload(events=20_000, users=300, seed=3)


@pytest.mark.parametrize("module", MODULES)
def test_each_can_be_started(module):
    """Two could not: what they import had another name by then."""
    importlib.import_module(f"benchmarks.{module}")


def expected_of(work: Workload):
    profiles = {key: value for key, value, _ in work.profiles()}
    recomputation = Recomputation(profiles)
    faults = {position for position, _ in work.faults()}
    for number, record in enumerate(work.raw_events()):
        if number not in faults:
            recomputation.add(record[1])
    for record in closing_events(work, 4, work.events):
        recomputation.add(record[1])
    return recomputation.result(work.events + 4)


def oracles(work: Workload):
    profiles = {key.decode(): msgspec.json.decode(value) for key, value, _ in work.profiles()}
    return oracle.recompute([(0, *record) for record in work.raw_events()], profiles)


def test_the_recomputation_agrees_with_the_oracle() -> None:
    ours, theirs = expected_of(WORK), oracles(WORK)
    assert ours.valid == len(theirs.valid) + 4
    assert ours.enriched == len(theirs.valid) - theirs.unmatched
    counts = Counter((*window, count) for window, count in theirs.counts.items())
    assert ours.counts == counts
    sessions = Counter(
        (user, *session[:5]) for user, rows in theirs.sessions.items() for session in rows
    )
    assert ours.sessions == sessions


def test_the_oracles_enriched_events_pass_and_a_wrong_one_does_not() -> None:
    ours = expected_of(WORK)
    values = [
        msgspec.json.encode(
            {
                "id": each.event["id"],
                "country": each.profile["country"],
                "days_since_signup": (each.event["timestamp"] - each.profile["signup_ts"])
                // 86_400_000,
            }
        )
        for each in oracles(WORK).enriched
        if each.profile
    ]
    assert checks.enriched(values, ours).correct
    twice = [*values[1:], values[1]]
    assert not checks.enriched(twice, ours).correct
    assert not checks.enriched(values[1:], ours).correct
    later = msgspec.json.decode(values[0])
    later["days_since_signup"] += 1
    assert not checks.enriched([msgspec.json.encode(later), *values[1:]], ours).correct


def test_closing_events_reach_every_partition_a_day_later() -> None:
    closing = closing_events(WORK, 64, 7)
    assert len({key for key, _, _ in closing}) == 64
    assert all(time >= WORK.end_ms + 86_400_000 for _, _, time in closing)
    for key, value, time in closing:
        event = oracle.check(key, value)
        assert event["timestamp"] == time


def test_a_gap_of_exactly_half_an_hour_joins() -> None:
    rows = [(0, True, 1.5), (30 * MIN, False, 2.0), (60 * MIN + 1, True, 0.0)]
    assert list(sessions_of("user_1", rows)) == [
        ("user_1", 0, 30 * MIN, 2, 1, 3.5),
        ("user_1", 60 * MIN + 1, 60 * MIN + 1, 1, 1, 0.0),
    ]


def test_rows_that_differ_are_told() -> None:
    verdict = checks.compared(Counter({1: 2, 2: 1}), Counter({1: 1, 3: 1}))
    assert not verdict.correct
    assert verdict.notes == "1 missing, 2 too many"
    assert checks.compared(Counter({1: 1}), Counter({1: 1})).correct


def test_a_fausts_table_is_read_without_the_closing_events() -> None:
    table = {
        b'"user_1"': b"[[0,60000,2,1,3.5]]",
        b'"user_9000000"': b"[[90000000,90000000,1,0,0]]",
    }
    assert checks.faust_sessions(table) == Counter([("user_1", 0, 60000, 2, 1, 3.5)])
    counts = {b'["user_1|click",[60.0,119.9]]': b"3"}
    assert checks.faust_counts(counts) == Counter([("user_1", "click", 60_000, 3)])


DRAINED = Drained(
    [
        Look(10.0, 100, 1.0),
        Look(12.0, 250, 3.0),
        Look(14.0, 300, 5.0),
        Look(15.0, 600, 6.0),
        Look(18.0, 1100, 9.0),
    ],
    rss_mb=1,
    wall_s=9,
)


def test_rates_are_of_the_whole_drain_or_of_what_comes_after_warming_up() -> None:
    assert DRAINED.figures(1000, 0.0) == (1000 / 8, 8.0 / 1000 * 1e6)
    assert DRAINED.figures(1000, 0.2) == (800 / 4, 4.0 / 800 * 1e6)


def test_a_drain_that_came_in_one_piece_is_measured_whole() -> None:
    drained = Drained([Look(0.0, 0, 0.0), Look(2.0, 50, 1.0)], rss_mb=1, wall_s=2)
    assert drained.figures(100, 0.2) == (50.0, 1.0 / 100 * 1e6)


def a_round(engine: str, rate: float, cpu: float, *, correct: bool = True) -> Round:
    return Round(
        job="enrich", engine=engine, guarantee="exactly_once", store="rocksdb", events=100,
        expected=9, came=9, correct=correct, notes="", events_per_second=rate,
        cpu_seconds_per_million=cpu, whole_events_per_second=rate,
        whole_cpu_seconds_per_million=cpu, rss_mb=100, drain_seconds=1, wall_seconds=2,
        load_average=0,
    )  # fmt: skip


ROUNDS = [
    a_round("headrace", 100, 5), a_round("quix", 50, 10),
    a_round("headrace", 300, 5), a_round("quix", 100, 20),
    a_round("headrace", 50, 5), a_round("quix", 25, 10, correct=False),
]  # fmt: skip


def test_ratios_are_taken_inside_a_round() -> None:
    assert report.ratio(ROUNDS, "enrich", "quix", "events_per_second") == 2.0  # of 2, 3 and 2
    assert report.ratio(ROUNDS, "enrich", "quix", "cpu_seconds_per_million") == 0.5


def test_a_table_says_who_was_wrong_and_who_is_missing() -> None:
    text = report.table(ROUNDS, {"bytewax": "pip failed"})
    rows = [line for line in text.splitlines() if line.startswith("| enrich")]
    assert len(rows) == 2
    assert "NOT exact" in rows[1]
    assert "NOT exact" not in rows[0]
    assert "bytewax was skipped: pip failed" in text


def test_without_headrace_there_are_no_ratios() -> None:
    text = report.table([a_round("quix", 50, 10)], {})
    assert text.endswith("| - | - |")


def test_the_summary_has_a_job_an_engine_and_four_figures() -> None:
    assert report.summary(ROUNDS)["jobs"]["enrich"]["headrace"] == {
        "events_per_second": 100,
        "cpu_seconds_per_million": 5,
        "rss_mb": 100,
        "guarantee": "exactly_once",
    }


def test_percentiles_are_values_that_were_seen() -> None:
    assert percentile([4, 1, 3, 2], 0.5) == 2
    assert percentile(range(1, 101), 0.99) == 99
    assert percentile([7], 0.99) == 7


def test_latency_is_judged_by_the_interval() -> None:
    assert Figures(100, 1, p50_ms=110, p99_ms=250, most_ms=900, start_ms=1).within
    assert not Figures(100, 1, p50_ms=111, p99_ms=250, most_ms=900, start_ms=1).within
    assert not Figures(100, 1, p50_ms=110, p99_ms=251, most_ms=900, start_ms=1).within


def test_the_command_line_has_all_jobs_and_knows_its_engines() -> None:
    assert options([]).jobs == list(JOBS)
    assert options([]).engines == list(ENGINES)
    assert options(["--quick"]).engines == list(QUICK)
    assert options(["--quick", "--events", "7"]).events == 7
    with pytest.raises(SystemExit):
        options(["--engines", "flink"])
