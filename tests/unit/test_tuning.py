"""What is adapted: within bounds, steady under a steady load, quick after a step."""

from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import App, tuning
from engine.clock import SystemClock
from engine.config import make
from engine.metrics import Metrics
from engine.pace import Pace
from engine.testing import Driver
from engine.tuning import FETCH_LEAST, ROUND_MS, ROUND_RECORDS, Tuning

LEAST, MOST = 100, 1_000
times = st.floats(0, 1e6)


def commits(known, count, commit_ms, *, behind, overfull=False):
    for _ in range(count):
        known = tuning.after_commit(known, commit_ms, behind=behind, overfull=overfull)
    return known


def interval(known):
    return tuning.interval_ms(known, LEAST, MOST)


@given(
    st.lists(st.tuples(times, st.booleans(), st.booleans(), st.integers(1, 5_000), times)),
    st.integers(1, 60_000),
    st.integers(1, 60_000),
    st.integers(1, 1 << 40),
    st.integers(1_024, 1 << 30),
)
def test_everything_stays_in_its_bounds(load, least, most, room, most_bytes):
    known = Tuning()
    for commit_ms, behind, overfull, records, took_ms in load:
        known = tuning.after_commit(known, commit_ms, behind=behind, overfull=overfull)
        known = tuning.after_round(known, records, took_ms)
        assert least <= tuning.interval_ms(known, least, most) <= max(least, most)
        assert 1 <= tuning.round_records(known) <= ROUND_RECORDS
        asked = tuning.fetch_bytes(known, room, most_bytes)
        assert min(most_bytes, FETCH_LEAST) <= asked <= most_bytes


@given(st.floats(1, 10_000), st.booleans(), st.integers(1, 2_000), st.floats(0.001, 10))
def test_a_steady_load_has_a_steady_answer(commit_ms, behind, records, record_ms):
    """It is reached, and never left again."""
    known = commits(Tuning(), 10, commit_ms, behind=behind)
    first = interval(known)
    assert interval(commits(known, 100, commit_ms, behind=behind)) == first
    for _ in range(100):
        known = tuning.after_round(known, records, records * record_ms)
    settled = tuning.round_records(known)
    for _ in range(100):
        known = tuning.after_round(known, records, records * record_ms)
        assert abs(tuning.round_records(known) - settled) <= 1


@given(st.floats(1, 60), st.floats(0, 0.2))
def test_a_commit_that_grows_with_the_interval_does_not_run_away(fixed_ms, share):
    """A part of what a commit costs is for each record: the interval settles all the same."""
    known, seen = Tuning(), []
    for _ in range(200):
        commit_ms = fixed_ms + share * interval(known)
        known = tuning.after_commit(known, commit_ms, behind=True, overfull=False)
        seen.append(interval(known))
    settled = min(MOST, max(LEAST, 2 * fixed_ms / (1 - 2 * share)))
    assert abs(seen[-1] - settled) < 0.01 * settled
    assert seen[2:] == sorted(seen[2:]) or seen[2:] == sorted(seen[2:], reverse=True)


def test_who_keeps_up_commits_at_the_lower_bound_whatever_it_takes():
    assert interval(commits(Tuning(), 50, 900, behind=False)) == LEAST
    assert interval(commits(commits(Tuning(), 50, 90, behind=False), 1, 90, behind=True)) == LEAST


def test_a_step_is_followed_within_a_few_commits():
    known = commits(Tuning(), 50, 80, behind=False)
    known = commits(known, 3, 80, behind=True)
    assert interval(known) == 160
    assert interval(commits(known, 6, 20, behind=True)) < 130
    assert interval(commits(known, 3, 80, behind=False)) == LEAST


def test_records_that_cost_much_make_rounds_small_at_once():
    known = Tuning()
    for _ in range(20):
        known = tuning.after_round(known, 2_000, 20)
    assert tuning.round_records(known) == ROUND_RECORDS
    known = tuning.after_round(known, 2_000, 2_000)  # a millisecond each
    assert tuning.round_records(known) == ROUND_MS
    for _ in range(20):
        known = tuning.after_round(known, 50, 0.5)
    assert tuning.round_records(known) == ROUND_RECORDS


def test_a_round_of_one_record_says_little():
    """The loop does other things beside it."""
    known = Tuning()
    for _ in range(20):
        known = tuning.after_round(known, 2_000, 40)
    known = tuning.after_round(known, 1, 5)
    assert tuning.round_records(known) > ROUND_RECORDS / 2


def test_what_inflates_is_asked_for_in_smaller_pieces():
    known = commits(Tuning(), 5, 50, behind=True, overfull=True)
    assert tuning.fetch_bytes(known, 8 << 20, 1 << 20) == (8 << 20) // 32
    assert tuning.fetch_bytes(commits(known, 100, 50, behind=True), 8 << 20, 1 << 20) == 1 << 20


@contextmanager
def pressed(**settings):
    """A worker that has worked off a backlog on a slow broker."""
    app = App("pressed", inbox_records=10, **settings)
    topic = app.topic("in", value_type=int)

    @app.agent(topic, sink=[app.topic("out", value_type=int)])
    async def work(stream):
        async for number in stream:
            yield number

    with Driver(app) as driver:
        engine = driver._engine
        for number in range(10):
            driver.broker.produce("in", None, b"%d" % number, 0)
            engine.checkpoint.took_ms = 120.0
            engine.pace._behind = True
            driver.clock.move_to(driver.clock.now_ms() + 2_000)
            driver._run(engine.step())
        yield driver


@pytest.mark.parametrize(
    ("settings", "interval_ms"),
    [({}, 240), ({"adaptive": False}, 100), ({"commit_interval_max_ms": 200}, 200)],
)
def test_settings_that_are_not_to_be_adapted_are_not(settings, interval_ms):
    with pressed(**settings) as driver:
        assert driver._engine.pace.interval_ms == interval_ms


def test_a_backlog_that_is_done_waits_no_longer_for_its_commit():
    """The worker stood idle for the rest of the interval, with results that nobody saw."""
    with pressed() as driver:
        pace, checkpoint = driver._engine.pace, driver._engine.checkpoint
        tasks = driver._engine.assignment.working()
        [task] = tasks

        def due_after(waited_ms):
            checkpoint.last_ms = driver._engine.edges.clock.elapsed_ms() - waited_ms
            return pace.is_due(checkpoint, tasks)

        assert task.inbox.drained()
        pace.handed = 0
        assert (due_after(99), due_after(100)) == (False, True)
        assert pace.patience_ms(checkpoint, tasks, waiting=False) == 1  # it wakes up for it
        checkpoint.last_ms += 40
        assert pace.patience_ms(checkpoint, tasks, waiting=False) == 40
        pace.handed = 1  # in this round: the agents may have it in hand
        assert (due_after(239), due_after(240)) == (False, True)
        pace.handed = 0
        driver.broker.produce("in", None, b"1", 0)  # it is known to be there, and has not come
        assert (due_after(239), due_after(240)) == (False, True)


class Greedy:
    """A task that always has more to do."""

    def advance(self, limit):
        return limit

    def pending_bytes(self):
        return 0


def test_rounds_are_shorter_while_a_transaction_is_under_way():
    """Its answers come one after the other. But something is always done, until it is too much."""
    pace = Pace(make({"id": "paced", "outbox_records": 4_000}, {}), SystemClock(), Metrics())
    tasks = [Greedy() for _ in range(4)]
    handed = []
    for waiting in (False, True, True, True, False):
        pace.share_out(tasks, waiting=waiting)
        handed.append(pace.handed)
    half = ROUND_RECORDS // 2
    assert handed == [ROUND_RECORDS, half, half, 0, ROUND_RECORDS]
    slow = Pace(make({"id": "slow"}, {}), SystemClock(), Metrics())
    slow.tuning = Tuning(round_ms=1_000, round_size=1)
    slow.share_out(tasks, waiting=True)
    assert slow.handed == 1
