"""Each mistake is caught by an invariant; ``python -m tests.simulation --mutants`` prints them."""

import pytest

from tests.simulation.mutants import CONFUSED, FOUND, FROZEN, RESTLESS, SEEDED, hunt
from tests.simulation.simulation import Simulation


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.parametrize("mutant", SEEDED + FOUND, ids=lambda mutant: mutant.name)
def test_a_mutant_is_caught(mutant):
    verdict = hunt(mutant)
    print(verdict)
    assert verdict.violation, f"no invariant noticed in {verdict.seeds} seeds: {mutant.name}"


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    "under", [CONFUSED, FROZEN, RESTLESS], ids=["confused", "frozen", "restless"]
)
def test_the_engine_itself_stands_the_weather(under):
    """What brings mutants out is no excuse for the engine."""
    for seed in range(12):
        Simulation(seed, under=under).run()


def test_the_six_are_there():
    assert [mutant.name for mutant in SEEDED] == [
        "skip the gather", "commit before flush", "no InitProducerId", "split data and offset",
        "ack in finally", "no tombstone on expiry",
    ]  # fmt: skip
