"""The scale model's counts are those of the true engine, at several sizes."""

import pytest

from benchmarks.scale import Deployment, Job, figures
from tests.simulation.traffic import HEARTBEAT_S, Traffic, kept_app, moved_app

INTERVAL_MS = 500
EACH_S = 0.1
JOBS = {
    "kept": (kept_app, Job(inputs=2, positions=2, kept=2, changelogs=1)),
    "moved": (moved_app, Job(parts=2, inputs=2, positions=2, kept=1, moved=1, changelogs=1)),
}
"""An app, and what it is to the model; both read ``clicks``, and kept reads ``users`` beside it."""
SIZES = [
    ("kept", 4, 1, False), ("kept", 16, 4, False), ("kept", 48, 6, False), ("kept", 12, 3, True),
    ("moved", 4, 2, False), ("moved", 16, 4, False), ("moved", 24, 8, False),
]  # fmt: skip


def deployed(partitions, replicas, per_task):
    """The run, in the model's words; each partition of an input gets a record each ``EACH_S``."""
    return Deployment(
        partitions=partitions,
        replicas=replicas,
        commit_interval_ms=INTERVAL_MS,
        events_per_second=partitions / EACH_S,
        heartbeat_s=10 / HEARTBEAT_S,
        per_task=per_task,
    )


@pytest.mark.parametrize(("name", "partitions", "replicas", "per_task"), SIZES)
def test_model_and_engine_agree(name, partitions, replicas, per_task):
    app, job = JOBS[name]
    run = Traffic(
        app(), partitions, replicas, each_s=EACH_S, commit_interval_ms=INTERVAL_MS,
        producers="task" if per_task else "worker",
    ).run()  # fmt: skip
    said = figures(deployed(partitions, replicas, per_task), job)
    assert {what: round(count) for what, count in said.joining.items()} == run.joining
    asked = {what: rate for what, rate in said.requests.items() if what != "Fetch"}
    assert run.steady == pytest.approx(asked, rel=0.1)
    assert run.markers == pytest.approx(said.markers, rel=0.1)
    assert run.positions == pytest.approx(said.positions, rel=0.1)
    assert run.rebalance_s <= said.rebalance_s * (replicas + 1) / replicas + 0.3
