"""Runs with crashes, zombies, lost answers and rebalances: nothing is lost or doubled."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.campaign import report, run_seeds
from tests.simulation.mutants import SEEDED, swapped

ROOT = Path(__file__).parents[2]
FAULTS = (
    "kill", "freeze", "join", "leave", "write slow",
    "kill at a point", "freeze at a point", "leave at a point",
    "request slow", "request lost", "answer lost",
    "leader not there", "batch denied", "batch taken, not said so",
    "coordinator not there", "EndTxn done, not said so", "marker late",
    "move group", "group: on the move", "move transactions", "transactions: on the move",
    "retention", "batch too large", "fetch refused", "disk full",
    "store corrupt",
)  # fmt: skip
"""All but a position that is gone: that takes more seeds."""
OUTCOMES = (
    "commit", "abort", "transaction timed out", "generation", "session expired",
    "instance taken over",
)  # fmt: skip


SEEDS = 400
"""Of a build: enough for each kind of fault. The command runs a thousand, unless it is told to."""


def simulation(*arguments, hash_seed="random"):
    """Run the command as a user does, on what time the tests beside it leave."""
    return subprocess.run(
        ["nice", sys.executable, "-m", "tests.simulation", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.timeout(900)  # it takes three minutes of CPU, and the tests beside it go first
def test_whatever_happens_each_input_has_its_effect_once():
    """Many seeds on all cores; and every kind of fault did happen."""
    run = simulation("--seeds", str(SEEDS))
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"{SEEDS} seeds" in run.stdout
    assert "0 failures" in run.stdout
    told = {line.rsplit(None, 1)[0] for line in run.stdout.splitlines() if line}
    assert told >= {*FAULTS, *OUTCOMES}


def test_a_seed_is_a_run_to_the_last_byte():
    """The trace, and a hash of every record and step, are the same in another process."""
    first = simulation("--seed", "29", hash_seed="1")
    assert first.returncode == 0, first.stdout + first.stderr
    assert first.stdout == simulation("--seed", "29", hash_seed="2").stdout
    assert first.stdout != simulation("--seed", "30").stdout
    assert first.stdout.count("\n") > 60


def test_a_failing_seed_comes_with_the_command_that_repeats_it():
    mutant = next(mutant for mutant in SEEDED if mutant.name == "ack in finally")
    with swapped(mutant):
        told = "\n".join(report(run_seeds(range(3))))
    assert "python -m tests.simulation --seed 0" in told
    assert "seed 0: I1: " in told
    assert "3 failures" in told
