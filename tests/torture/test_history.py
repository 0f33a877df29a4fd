"""What happened over time is judged: offsets, open transactions, owners, recoveries, growth."""

import pytest

from engine.torture.grouplog import Commit, Generation, GroupLog, Member
from engine.torture.history import (
    Gauge,
    Kill,
    check_commits,
    check_gauges,
    check_open,
    check_owners,
    percentile,
    recoveries,
)
from engine.torture.observer import End
from engine.torture.verdict import Verdict

A, B = ("raw", 0), ("raw", 1)
ONE, TWO = (11, 0), (22, 0)


def commit(at: int, place: tuple[str, int], offset: int, producer: tuple[int, int]) -> Commit:
    return Commit(at, 1_000 * at, place, offset, producer)


def generation(at: int, **places: list) -> Generation:
    members = tuple(Member(name, frozenset(held)) for name, held in places.items())
    return Generation(at, 1_000 * at, at, members)


@pytest.fixture
def log() -> GroupLog:
    """Two workers; ``one`` is killed at 5.5 s, and ``two`` has it all from 8 s on."""
    return GroupLog(
        [
            commit(2, A, 10, ONE), commit(3, B, 10, TWO), commit(4, A, 20, ONE),
            commit(5, B, 15, TWO), commit(9, B, 20, TWO), commit(10, A, 20, TWO),
            commit(11, A, 30, TWO),
        ],
        [generation(1, one=[A], two=[B]), generation(8, two=[A, B])],
    )  # fmt: skip


def judged(log: GroupLog) -> Verdict:
    verdict = Verdict()
    check_commits(log, {A: 30, B: 20}, verdict)
    check_owners(log, verdict)
    return verdict


def test_an_honest_log_passes(log: GroupLog) -> None:
    """Committing the same offset again, after a rebalance, is no step back."""
    assert not judged(log).findings


def test_an_offset_that_goes_back_is_found(log: GroupLog) -> None:
    """I5, wherever it happens."""
    log.commits[5] = commit(10, A, 19, TWO)
    verdict = judged(log)
    assert verdict.broken == ["I5"]
    assert "raw[0] from 20 to 19" in str(verdict)


def test_input_that_was_left_is_found(log: GroupLog) -> None:
    """I5: the last offset is the end's."""
    log.commits.pop()
    verdict = judged(log)
    assert verdict.broken == ["I5"]
    assert "raw[0] at 20 of 30" in str(verdict)


def test_a_second_committer_in_a_generation_is_found(log: GroupLog) -> None:
    """I7: a zombie commits what is not its own any more."""
    log.commits[5] = commit(10, A, 25, ONE)
    verdict = judged(log)
    assert verdict.broken == ["I7"]
    assert "generation 8: raw[0] by producers [11, 22]" in str(verdict)


def test_two_members_with_one_producer_are_found(log: GroupLog) -> None:
    """I7: two workers share a transactional id."""
    log.commits[1] = commit(3, B, 10, ONE)
    log.commits[3] = commit(5, B, 15, ONE)
    assert judged(log).broken == ["I7"]


def test_a_producer_that_was_fenced_and_commits_is_found(log: GroupLog) -> None:
    """I7: where the transactional id is a task's, only the epoch tells a zombie."""
    log.commits[5:] = [commit(10, A, 25, (11, 1)), commit(11, A, 30, ONE)]
    log.commits[4] = commit(9, B, 20, (33, 0))
    verdict = judged(log)
    assert verdict.broken == ["I7"]
    assert "raw[0] by producer 11 in epoch 0" in str(verdict)


def test_a_partition_that_is_nobodys_is_found(log: GroupLog) -> None:
    """I7: committed in a generation that gave it to nobody."""
    log.generations[1] = generation(8, two=[B])
    assert judged(log).broken == ["I7"]


def test_an_open_transaction_is_found() -> None:
    """I6: readers of committed records stop before the end."""
    verdict = Verdict()
    check_open({A: End(7, 7), B: End(3, 9)}, verdict)
    assert verdict.broken == ["I6"]
    assert "raw[1] is stable to 3 of 9" in str(verdict)


def test_a_recovery_ends_with_the_first_progress_of_a_new_owner(log: GroupLog) -> None:
    """Not with the same offset again, and only partitions of the killed worker's count."""
    verdict = Verdict()
    kill = Kill(5_500, "one")
    assert [(r.place, r.seconds) for r in recoveries(log, [kill], verdict)] == [(A, 5.5)]
    assert not verdict.findings
    assert recoveries(log, [Kill(5_500, "three")], verdict) == []


def test_a_worker_that_commits_after_its_death_does_not_count_as_its_heir(log: GroupLog) -> None:
    """A commit of the killed producer's that arrives late is not the recovery."""
    log.commits.insert(4, commit(6, A, 25, ONE))
    assert [r.seconds for r in recoveries(log, [Kill(5_500, "one")], Verdict())] == [5.5]


def test_a_partition_that_nobody_takes_up_is_found(log: GroupLog) -> None:
    """I8: only the dead one's late commit moves it."""
    log.commits[5:] = [commit(10, A, 30, ONE)]
    verdict = Verdict()
    assert recoveries(log, [Kill(5_500, "one")], verdict) == []
    assert verdict.broken == ["I8"]


def test_growth_is_found_in_processes_that_live_long() -> None:
    """I9: memory that climbs to the end; a plateau passes, and so does a short life."""
    climbing = [Gauge(n, 100 << 20 | n << 20, 40) for n in range(0, 400, 2)]
    flat = [Gauge(n, min(n, 100) << 20, 40) for n in range(0, 400, 2)]
    leaking = [Gauge(n, 100 << 20, 40 + n) for n in range(0, 400, 2)]
    verdict = Verdict()
    check_gauges({"flat": flat, "short": climbing[:20]}, verdict)
    assert not verdict.findings
    check_gauges({"climbing": climbing, "leaking": leaking}, verdict)
    assert verdict.broken == ["I9"]
    assert "climbing: resident" in str(verdict)
    assert "leaking: files" in str(verdict)


def test_percentiles_are_by_nearest_rank() -> None:
    """The 99th of few values is the highest."""
    values = [float(n) for n in range(1, 101)]
    assert (percentile(values, 0.5), percentile(values, 0.99)) == (50.0, 99.0)
    assert percentile([3.0, 1.0, 2.0], 0.99) == 3.0
    assert percentile([], 0.5) is None
