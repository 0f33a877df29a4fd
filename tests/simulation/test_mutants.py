"""Each mistake is caught by an invariant; ``python -m tests.simulation --mutants`` prints them."""

import pytest

from tests.simulation.mutants import FOUND, SEEDED, hunt
from tests.simulation.simulation import Simulation


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.parametrize("mutant", SEEDED + FOUND, ids=lambda mutant: mutant.name)
def test_a_mutant_is_caught(mutant):
    verdict = hunt(mutant)
    print(verdict)
    assert verdict.violation, f"no invariant noticed in {verdict.seeds} seeds: {mutant.name}"


@pytest.mark.parametrize("mutant", [m for m in FOUND if m.under], ids=lambda mutant: mutant.name)
def test_the_engine_itself_stands_what_brings_a_mutant_out(mutant):
    for seed in range(20):
        Simulation(seed, under=mutant.under).run()


def test_the_six_are_there():
    assert [mutant.name for mutant in SEEDED] == [
        "skip the gather", "commit before flush", "no InitProducerId", "split data and offset",
        "ack in finally", "no tombstone on expiry",
    ]  # fmt: skip
