"""What a worker adapts to its load, as pure functions: measured in, decided out.

=================  =============================  ==================================================
knob               bounds                         goes by
=================  =============================  ==================================================
commit interval    ``commit_interval_ms`` to      how long transactions take, while the worker is
                   ``commit_interval_max_ms``     behind its input; else it is the lower bound
records a round    1 to ROUND_RECORDS             what a record costs: a round is to take ROUND_MS
fetch size         FETCH_LEAST to its share of    whether what came was more than there was room
                   the memory, or ``fetch_bytes`` for (compressed batches inflate)
=================  =============================  ==================================================

A commit's price is mostly paid a commit and not a record: some ten requests, and one entry and one
changelog record a key that changed, however often it did. A worker that keeps up pays it for low
latency; one that is behind has a latency that its backlog makes, and works it off sooner with fewer
commits. So a transaction is to be under way for half of the time at most. More would not
pay: what is saved on commits is lost on working sets that outgrow the processor's cache. Once
nothing is left to do, waiting would save nothing: then it is the lower bound again, at once
(:mod:`engine.pace`).

Rounds are kept short for the loop's sake: between two rounds it sends heartbeats and handles a
transaction's answers, some ten, one after the other. While one is under way they are half as long
(:meth:`engine.pace.Pace.share_out`).
"""

from __future__ import annotations

import msgspec

ROUND_RECORDS = 2_000
ROUND_MS = 50.0
FETCH_LEAST = 16 << 10

_COMMITS = 2.0
"""The interval is so many times what a transaction takes."""
_KEEP = 0.75
"""Of what was known stays so much with each measurement."""


class Tuning(msgspec.Struct, frozen=True):
    """What is known of the load; 0: nothing yet.

    Attributes:
        commit_ms: what a transaction takes, with what the loop does meanwhile.
        round_ms, round_size: what a round takes, and the records in it.
        behind: how much of the time the worker is behind its input, 0 to 1.
        fetch: of the fetch size that there is room for, the part that is asked for.
    """

    commit_ms: float = 0.0
    round_ms: float = 0.0
    round_size: float = 0.0
    behind: float = 0.0
    fetch: float = 1.0


def _moved(known: float, measured: float) -> float:
    return measured if known == 0.0 else _KEEP * known + (1 - _KEEP) * measured


def after_commit(tuning: Tuning, commit_ms: float, *, behind: bool, overfull: bool) -> Tuning:
    """Learn from a commit.

    Args:
        commit_ms: what its transaction took.
        behind: when it began, input had come that waited for its turn.
        overfull: an input held far more than its share of the memory.
    """
    fetch = max(tuning.fetch / 2, 1 / 1024) if overfull else min(1.0, tuning.fetch * 1.05)
    return msgspec.structs.replace(
        tuning,
        commit_ms=_moved(tuning.commit_ms, commit_ms),
        behind=_KEEP * tuning.behind + (1 - _KEEP) * behind,
        fetch=fetch,
    )


def after_round(tuning: Tuning, records: int, took_ms: float) -> Tuning:
    """Learn from a round: at once from one that was too long, else by and by.

    Times and records are averaged, and not their quotient: a round of one record says little.
    """
    if took_ms > ROUND_MS and took_ms * tuning.round_size > tuning.round_ms * records:
        fitting = records * ROUND_MS / took_ms  # the same cost, and no longer remembered
        return msgspec.structs.replace(tuning, round_ms=ROUND_MS, round_size=fitting)
    return msgspec.structs.replace(
        tuning,
        round_ms=_moved(tuning.round_ms, took_ms),
        round_size=_moved(tuning.round_size, records),
    )


def interval_ms(tuning: Tuning, least: float, most: float) -> float:
    """Return the time between two commits.

    A worker that keeps up commits every ``least`` ms; a single burst does not change that.
    """
    if tuning.behind < 0.5:  # noqa: PLR2004  half of the last commits
        return least
    return min(max(least, most), max(least, _COMMITS * tuning.commit_ms))


def round_records(tuning: Tuning) -> int:
    """Return how many records are worked on between two looks at the sockets."""
    if tuning.round_ms * ROUND_RECORDS <= ROUND_MS * tuning.round_size:
        return ROUND_RECORDS
    return max(1, int(ROUND_MS * tuning.round_size / tuning.round_ms))


def fetch_bytes(tuning: Tuning, room: int, most: int) -> int:
    """Return how much of a partition is asked for at a time.

    Args:
        room: its share of the memory for what is fetched.
        most: the setting.
    """
    return min(most, max(FETCH_LEAST, int(room * tuning.fetch)))
