"""What a worker counts and measures. The only file that imports prometheus_client.

Counters are moved once a batch or once a commit, never once a record. Names follow Prometheus'
practice: one prefix, base units, ``_total`` for counters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import prometheus_client as prometheus

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.contracts.contract import Checked
    from engine.stages import Stage


class Metrics:
    """One worker's metrics, in a registry of their own so that several can live in a process."""

    def __init__(self) -> None:
        self.registry = prometheus.CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> prometheus.Counter:
            return prometheus.Counter(f"headrace_{name}", text, labels, registry=self.registry)

        def gauge(name: str, text: str, *labels: str) -> prometheus.Gauge:
            return prometheus.Gauge(f"headrace_{name}", text, labels, registry=self.registry)

        self._received = counter(
            "records_received_total", "Records that met their contract", "topic"
        )
        self._broken = counter(
            "records_broken_total", "Records that broke their contract", "topic", "rule"
        )
        self._warned = counter(
            "records_warned_total", "Records that broke a rule of severity warning", "topic", "rule"
        )
        self._sent = counter("records_committed_total", "Records written, by topic", "topic")
        self._commits = counter("commits_total", "Transactions, by outcome", "outcome")
        self._commit_seconds = prometheus.Histogram(
            "headrace_commit_seconds", "Time from the cut to the end of the transaction",
            registry=self.registry,
            buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
        )  # fmt: skip
        self._agent_errors = counter("agent_errors_total", "Exceptions in agents", "agent")
        self._late = gauge("late_records", "Events too late for their window, by table", "table")
        self._dropped = gauge(
            "partial_matches_dropped",
            "Partial matches too many for a key, by pattern",
            "table",
        )
        self._tasks = gauge("tasks", "Tasks of this worker")
        self._parked = gauge("tasks_parked", "Tasks that stand still: stopped or waiting", "why")
        self._letters = counter("dead_letters_total", "Dead letters, by input topic", "topic")
        self._standbys = gauge("standbys", "Warm copies of other workers' tasks")
        self._restored = counter("records_restored_total", "Changelog records restored", "table")
        self._lag = prometheus.Histogram(
            "headrace_loop_lag_seconds", "How late the event loop is with what is due",
            registry=self.registry,
            buckets=(0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
        )  # fmt: skip
        self._stalls = counter("loop_stalls_total", "Stalls of the event loop")
        self._last_commit = gauge("last_commit_timestamp_seconds", "When the last commit succeeded")
        self._open_seconds = gauge("transaction_open_seconds", "Age of the commit under way, or 0")
        self._position_age = gauge(
            "position_age_seconds",
            "Since when a task with work to do has committed nothing",
            "task",
        )
        self._bytes = gauge("held_bytes", "Estimated bytes in memory", "where")
        self._interval = gauge("commit_interval_seconds", "Time between commits, as adapted")
        self._round = gauge("round_records", "Records between two looks at the sockets, at most")
        self._asked = gauge("fetch_bytes", "What is asked for of a partition at a time")
        self._factor = gauge("memory_factor", "Of the memory for records, what is given out")
        self._remaining = gauge("restore_remaining_records", "Left to restore, at most", "task")
        self._producers = counter("producers_opened_total", "Producers opened anew", "cause")
        self._rebalances = counter("rebalances_total", "Assignments taken from the group")
        self._ready = gauge("ready", "1: has its tasks, commits, and none is stopped")
        self._stage = counter(
            "stage_seconds_total", "Processor time of the loop's thread, by stage", "stage"
        )
        self._staged: dict[Stage, float] = {}
        self.totals: dict[str, int] = {}
        """Plain sums by name, for progress displays."""

    def _add(self, name: str, count: int) -> None:
        self.totals[name] = self.totals.get(name, 0) + count

    def received(self, topic: str, count: int, checked: Checked) -> None:
        """Count a batch that was decoded and checked."""
        self._received.labels(topic).inc(count)
        self._add(f"in:{topic}", count + len(checked.broken))
        for _, violation in checked.broken:
            self._broken.labels(topic, violation.rule).inc()
        for rule, times in checked.warned.items():
            self._warned.labels(topic, rule).inc(times)

    def committed(self, sent: dict[str, int], seconds: float, now_ms: int) -> None:
        """Count a transaction that is visible, and its records by topic."""
        self._last_commit.set(now_ms / 1000)
        self._commits.labels("committed").inc()
        self._commit_seconds.observe(seconds)
        self._add("commits", 1)
        for topic, count in sent.items():
            self._sent.labels(topic).inc(count)
            self._add(f"out:{topic}", count)

    def commit_failed(self, outcome: str) -> None:
        """Count a transaction that is not visible, or may not be."""
        self._commits.labels(outcome).inc()
        self._add(f"commits {outcome}", 1)

    def agent_failed(self, agent: str) -> None:
        """Count an exception in an agent."""
        self._agent_errors.labels(agent).inc()

    def restored(self, table: str, count: int) -> None:
        """Count changelog records that went into a store."""
        self._restored.labels(table).inc(count)
        self._add("restored", count)

    def tasks(self, count: int) -> None:
        """Say how many tasks the worker has."""
        self._tasks.set(count)

    def parked(self, stopped: int, waiting: int) -> None:
        """Say how many tasks stand still until a person acts, and how many for a while."""
        self._parked.labels("stopped").set(stopped)
        self._parked.labels("waiting").set(waiting)

    def dead_letters(self, topic: str, count: int) -> None:
        """Count dead letters on their way out; those of a commit that fails count again."""
        self._letters.labels(topic).inc(count)

    def standbys(self, count: int) -> None:
        """Say how many tasks of others the worker keeps a copy of."""
        self._standbys.set(count)

    def loop_lag(self, seconds: float) -> None:
        """Note how late the event loop was."""
        self._lag.observe(seconds)

    def stalled(self) -> None:
        """Count a stall of the event loop."""
        self._stalls.inc()
        self._add("stalls", 1)

    def restoring(self, task: str, remaining: int) -> None:
        """Say how many records a task has left to restore."""
        self._remaining.labels(task).set(remaining)

    def producer_opened(self, cause: str) -> None:
        """Count a producer that takes the place of one that is finished; "fenced" is one cause."""
        self._producers.labels(cause).inc()

    def rebalanced(self) -> None:
        """Count an assignment."""
        self._rebalances.inc()

    def gauged(self, open_s: float, ages: dict[str, float], held: dict[str, int], *, ready: bool
               ) -> None:  # fmt: skip
        """Set what is measured now and then.

        Args:
            open_s: the age of the commit under way.
            ages: of the tasks' positions.
            held: bytes, by where they are.
        """
        self._open_seconds.set(open_s)
        self._position_age.clear()
        for task, age in ages.items():
            self._position_age.labels(task).set(age)
        for where, count in held.items():
            self._bytes.labels(where).set(count)
        self._ready.set(ready)

    def tuned(self, interval_s: float, records: int, asked: int, factor: float) -> None:
        """Say how the worker goes about its work, as of this commit."""
        self._interval.set(interval_s)
        self._round.set(records)
        self._asked.set(asked)
        self._factor.set(factor)

    def staged(self, seconds: Mapping[Stage, float]) -> None:
        """Count processor time (s) by stage, given as sums since the start."""
        for stage, spent in seconds.items():
            self._stage.labels(stage).inc(max(0.0, spent - self._staged.get(stage, 0.0)))
        self._staged = dict(seconds)

    def left_out(self, late: Mapping[str, int], dropped: Mapping[str, int]) -> None:
        """Say what this worker's tasks have left out since they began.

        Args:
            late: events that were too late, by table or operator.
            dropped: partial matches for which there was no room, by pattern.
        """
        for table, count in late.items():
            self._late.labels(table).set(count)
        for table, count in dropped.items():
            self._dropped.labels(table).set(count)

    def text(self) -> bytes:
        """Return the exposition for a scrape."""
        return prometheus.generate_latest(self.registry)
