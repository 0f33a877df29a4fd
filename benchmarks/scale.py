"""What bounds a deployment of so many partitions and replicas: a model, in plain arithmetic.

python -m benchmarks.scale [--partitions P] [--replicas R] [--brokers B] ... [--json] [--svg FILE]

Requests are counted, not estimated: tests/simulation/test_scale.py holds the counts against what
the true engine asks of the simulated cluster. What a request costs is measured
(``python -m benchmarks.probes``). docs/scale.md explains both.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import NamedTuple

import msgspec

MB = 1 << 20
RESTORES_AT_ONCE = 4  # engine/assignment.py
SIZES = (
    (10, 1), (10, 2), (10, 10), (100, 1), (100, 4), (100, 20),
    (1_000, 1), (1_000, 4), (1_000, 20), (1_000, 100),
)  # fmt: skip


class Job(msgspec.Struct, frozen=True):
    """What one task of an app has to do with topics.

    Attributes:
        parts: sub-topologies: so many tasks a partition.
        inputs: topics that are read, tables that are topics included, over all parts.
        positions: of these, those that a commit moves.
        kept: outputs and changelogs that a commit touches in the task's own partition.
        moved: topics of ``group_by``: a record goes to any of their partitions.
        changelogs: tables with one, over all parts; stateful: parts that have tables at all.
        entry_bytes: a changelog record.
    """

    parts: int = 1
    inputs: int = 2
    positions: float = 2
    kept: float = 6
    moved: int = 0
    changelogs: int = 3
    stateful: int = 1


MAIN = Job()
"""The main job: enriched events, sessions and counts with their changelogs."""


class Costs(msgspec.Struct, frozen=True):
    """Measured on two cores with the broker beside it: see docs/scale.md for the run.

    Attributes:
        commit_ms, commit_ms_partition, commit_ms_position: how long a transaction takes.
        worker_cpu_ms, ...: CPU that it costs the worker; broker_cpu_ms, ...: the broker.
        member_cpu_ms_per_s: what a member that waits for records costs the broker.
        base_mb, store_mb, store_files, store_open_ms: a worker without tasks, and one more store.
        restore_per_s: entries that one worker restores.
        assign_us_per_task, group_bytes_per_task: the leader's work, and what the group keeps.
        position_bytes: a record of the offsets topic.
    """

    commit_ms: float = 5.8
    commit_ms_partition: float = 0.066
    commit_ms_position: float = 0.028
    worker_cpu_ms: float = 2.0
    worker_cpu_ms_partition: float = 0.027
    worker_cpu_ms_position: float = 0.008
    broker_cpu_ms: float = 7.0
    broker_cpu_ms_partition: float = 0.061
    broker_cpu_ms_position: float = 0.013
    member_cpu_ms_per_s: float = 16.0
    base_mb: float = 100.0
    store_mb: float = 0.6
    store_files: float = 12.0
    store_open_ms: float = 9.0
    restore_per_s: float = 270_000.0
    assign_us_per_task: float = 7.5
    group_bytes_per_task: float = 14.6
    position_bytes: float = 200.0


class Deployment(msgspec.Struct, frozen=True):
    """What is deployed, and under what load.

    Attributes:
        events_per_second: into all partitions together, evenly.
        entries: in all tables together.
        per_task: a transactional producer a task, and not one a worker.
    """

    partitions: int = 12
    replicas: int = 1
    brokers: int = 1
    commit_interval_ms: float = 100.0
    events_per_second: float = 50_000.0
    entries: float = 1_000_000.0
    heartbeat_s: float = 1.0
    session_s: float = 10.0
    memory_bytes: float = 1 << 30
    rocksdb_bytes: float = 128 << 20
    per_task: bool = False


class Figures(msgspec.Struct, frozen=True):
    """What the model says.

    Attributes:
        joining: requests, by kind, until all tasks of a new group are at work.
        requests: requests a second, by kind, when everything flows. Fetches are the least.
        transactions: a second; commit_ms: how long one takes.
        markers: partitions that get a transaction's marker, a second.
        positions: records of the offsets topic a second, all of them in one partition.
        broker_cores, worker_cores: CPU of all brokers, and of one worker, for this alone.
        connections: of one worker, and of all.
        memory_mb, files: of one worker.
        restore_s: of one worker's tasks, from nothing.
        rebalance_s: without commits when a worker comes; lost_s: when one dies, until all that it
            had is at work elsewhere.
    """

    tasks: int
    joining: dict[str, float]
    requests: dict[str, float]
    transactions: float
    commit_ms: float
    touched: float
    markers: float
    positions: float
    broker_cores: float
    worker_cores: float
    connections: float
    all_connections: float
    memory_mb: float
    files: float
    restore_s: float
    rebalance_s: float
    lost_s: float
    bounds: dict[str, float]


def hit(records: float, places: float) -> float:
    """How many of so many places are hit by so many records, thrown evenly."""
    return places * (1 - (1 - 1 / places) ** records) if places > 0 else 0.0


class Commit(NamedTuple):
    """One transaction."""

    touched: float
    positions: float
    ms: float


def commit_of(job: Job, at: Deployment, costs: Costs, tasks: float, interval_ms: float) -> Commit:
    """What one transaction has in it, and how long it takes.

    Args:
        tasks: whose work it is.
    """
    share = tasks / (at.partitions * job.parts)
    records = at.events_per_second * share * interval_ms / 1000
    touched = at.partitions * share * job.kept + job.moved * hit(records, at.partitions)
    positions = at.partitions * share * job.positions
    ms = costs.commit_ms + costs.commit_ms_partition * touched
    return Commit(touched, positions, ms + costs.commit_ms_position * positions)


def joining(job: Job, at: Deployment) -> dict[str, float]:
    """Requests, by kind, of a group whose members all come at once."""
    workers, tasks = at.replicas, at.partitions * job.parts
    producers = tasks if at.per_task else workers
    return {
        "Admin": workers * (6 + 2 * job.moved),
        "FindCoordinator": producers,
        "InitProducerId": producers,
        "JoinGroup": workers,
        "SyncGroup": workers,
        "OffsetFetch": workers,
        "ListOffsets": 2 * workers + 2 * at.partitions * job.stateful,
    }


def steady(at: Deployment, transactions: float, touched: float) -> dict[str, float]:
    """Requests a second, by kind, while everything flows."""
    return {
        "AddPartitionsToTxn": transactions,
        "AddOffsetsToTxn": transactions,
        "Produce": transactions * hit(touched, at.brokers),
        "TxnOffsetCommit": transactions,
        "EndTxn": transactions,
        "Heartbeat": at.replicas / at.heartbeat_s,
        "Admin": at.replicas / 5,
        "Fetch": at.replicas * at.brokers * 10,
    }


def connections_of(at: Deployment, tasks: float) -> float:
    """Connections of one worker, at most.

    The consumer and each producer have one to each leader, and one of its own to a coordinator
    (the transactions', the group's); asking for bounds takes one a leader, topics one; up to four
    readers of changelogs are kept once there was something to restore.
    """
    producers = tasks if at.per_task else 1
    consumer = at.brokers + 1
    producer = at.brokers + min(2, at.brokers)
    readers = min(RESTORES_AT_ONCE, tasks)
    return consumer + producers * producer + at.brokers + 1 + readers * at.brokers


def figures(at: Deployment, job: Job = MAIN, costs: Costs | None = None) -> Figures:
    """What a deployment comes to."""
    costs = costs or Costs()
    tasks = at.partitions * job.parts
    each = tasks / min(at.replicas, tasks)  # a worker's tasks; more workers than tasks are idle
    busy = min(at.replicas, tasks)
    commit = commit_of(job, at, costs, 1 if at.per_task else each, at.commit_interval_ms)
    period_ms = max(at.commit_interval_ms, commit.ms)
    transactions = (tasks if at.per_task else busy) * 1000 / period_ms
    broker_ms = (
        costs.broker_cpu_ms
        + costs.broker_cpu_ms_partition * commit.touched
        + costs.broker_cpu_ms_position * commit.positions
    )
    worker_ms = (
        costs.worker_cpu_ms
        + costs.worker_cpu_ms_partition * commit.touched
        + costs.worker_cpu_ms_position * commit.positions
    )
    stores = -(-each // job.parts) * job.stateful
    restore_s = stores * costs.store_open_ms / 1000 + at.entries / busy / costs.restore_per_s
    rebalance_s = (
        at.heartbeat_s * at.replicas / (at.replicas + 1)
        + tasks * costs.assign_us_per_task / 1e6
        + 2 * commit.ms / 1000
    )
    files = stores * costs.store_files + connections_of(at, each) + 20
    memory_mb = costs.base_mb + stores * costs.store_mb + (at.memory_bytes + at.rocksdb_bytes) / MB
    # of a lost worker's tasks, each of the others gets some
    others = max(1, busy - 1)
    lost_s = at.session_s + rebalance_s + restore_s / others
    broker_cores = (transactions * broker_ms + at.replicas * costs.member_cpu_ms_per_s) / 1000
    worker_cores = transactions / busy * worker_ms / 1000
    positions = transactions * commit.positions
    return Figures(
        tasks=tasks,
        joining=joining(job, at),
        requests=steady(at, transactions, commit.touched),
        transactions=transactions,
        commit_ms=commit.ms,
        touched=commit.touched,
        markers=transactions * (commit.touched + 1),
        positions=positions,
        broker_cores=broker_cores,
        worker_cores=worker_cores,
        connections=connections_of(at, each),
        all_connections=at.replicas * connections_of(at, each),
        memory_mb=memory_mb,
        files=files,
        restore_s=restore_s,
        rebalance_s=rebalance_s,
        lost_s=lost_s,
        bounds={
            "commits: a transaction takes as long as the commit interval": (
                commit.ms / at.commit_interval_ms
            ),
            "brokers: CPU for transactions, of one core each": broker_cores / at.brokers,
            "worker: CPU for commits, of its one core": worker_cores,
            "offsets: bytes a second into one partition, of 10 MB": (
                positions * costs.position_bytes / (10 * MB)
            ),
            "group: its record, of the 1 MB that a topic takes": (
                (tasks * costs.group_bytes_per_task + at.replicas * 200) / MB
            ),
            "worker: open files, of 1,024": files / 1024,
        },
    )


# -- what is printed -----------------------------------------------------------------------------


def told(found: Figures) -> str:
    """The figures in lines."""
    asked = ", ".join(f"{what} {rate:,.1f}" for what, rate in found.requests.items())
    first = ", ".join(f"{what} {count:,.0f}" for what, count in found.joining.items())
    all_of_it = f"{found.broker_cores:.2f}, {found.worker_cores:.2f} cores, for coordination alone"
    each = f"{found.commit_ms:,.1f} ms, {found.touched:,.1f} partitions"
    rows = {
        "tasks": f"{found.tasks:,}",
        "transactions/s": f"{found.transactions:,.1f}, each {each}",
        "markers/s, offsets/s": f"{found.markers:,.0f}, {found.positions:,.0f}",
        "requests/s": asked,
        "requests to start": first,
        "CPU: brokers, a worker": all_of_it,
        "connections": f"{found.connections:,.0f} a worker, {found.all_connections:,.0f} in all",
        "memory, files a worker": f"at most {found.memory_mb:,.0f} MB, {found.files:,.0f}",
        "restore from nothing": f"{found.restore_s:,.1f} s",
        "a worker comes": f"no commits for {found.rebalance_s:.1f} s",
        "a worker dies": f"its tasks are at work again after {found.lost_s:,.1f} s",
    }
    lines = [f"{what:<24} {text}" for what, text in rows.items()]
    bounds = sorted(found.bounds.items(), key=lambda row: -row[1])
    return "\n".join([*lines, *(f"bound {share:7.1%}  {name}" for name, share in bounds)])


def table(at: Deployment, job: Job) -> str:
    """A Markdown table of some sizes, the rest as in ``at``."""
    columns = (
        "partitions by workers", "transactions/s", "ms each", "markers/s", "offsets/s",
        "brokers' cores", "connections", "files a worker", "restore, s",
    )  # fmt: skip
    lines = [f"| {' | '.join(columns)} |", f"|---|{'---:|' * (len(columns) - 1)}"]
    for partitions, replicas in SIZES:
        size = msgspec.structs.replace(at, partitions=partitions, replicas=replicas)
        found = figures(size, job)
        lines.append(
            f"| {partitions:,} by {replicas} | {found.transactions:,.0f} | {found.commit_ms:,.0f} "
            f"| {found.markers:,.0f} | {found.positions:,.0f} | {found.broker_cores:.2f} "
            f"| {found.all_connections:,.0f} | {found.files:,.0f} | {found.restore_s:,.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    for field in msgspec.structs.fields(Deployment):
        if field.type is not bool:
            option, kind = f"--{field.name.replace('_', '-')}", field.type
            parser.add_argument(option, type=kind, default=field.default, help=f"{field.default}")
    parser.add_argument("--per-task", action="store_true", help="a producer a task")
    parser.add_argument("--moved", type=int, default=0, help="topics of group_by (0)")
    parser.add_argument("--json", action="store_true", help="everything as JSON")
    parser.add_argument("--table", action="store_true", help="some sizes, as Markdown")
    parser.add_argument("--svg", type=Path, help="draw what grows with partitions and replicas")
    given = vars(parser.parse_args())
    as_json, as_table = given.pop("json"), given.pop("table")
    svg, moved = given.pop("svg"), given.pop("moved")
    at = Deployment(**given)
    job = msgspec.structs.replace(MAIN, moved=moved)
    if svg:
        from benchmarks.scalechart import chart  # noqa: PLC0415

        svg.write_text(chart(at, job))
        return
    if as_table:
        print(table(at, job))
        return
    found = figures(at, job)
    print(json.dumps(msgspec.to_builtins(found)) if as_json else told(found))


if __name__ == "__main__":
    sys.exit(main())
