"""Hundreds of runs with crashes, zombies, lost answers and rebalances: nothing lost or doubled.

``pytest tests/simulation --seed 57`` repeats one run exactly; ``--seeds 5000`` runs more of them.
"""

import pytest

from tests.simulation.simulation import Simulation, simulate, trace_text

PARTS = 10
TAIL = 60
SEEDS = 300


def seeds(config, part):
    """Return the seeds of one part of the dose."""
    single = config.getoption("--seed", default=None)
    if single is not None:
        return [single] if part == 0 else []
    count = config.getoption("--seeds", default=None) or SEEDS
    return range(part, count, PARTS)


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("part", range(PARTS))
def test_whatever_happens_each_input_has_its_effect_once(part, pytestconfig):
    for seed in seeds(pytestconfig, part):
        run = Simulation(seed)
        try:
            run.run()
        except Exception as error:  # noqa: BLE001  whatever it is, the seed must be told
            print(trace_text(run.cluster.events[-TAIL:]))
            pytest.fail(
                f"seed {seed}: {error}\nrepeat it: pytest tests/simulation/test_simulation.py "
                f"--seed {seed}"
            )


def test_a_seed_is_a_run():
    """The same seed gives the same run to the last event, another one gives another."""
    for seed in (3, 29):
        first = simulate(seed)
        assert first == simulate(seed)
        assert len(first) > 30
        assert first != simulate(seed + 1)


def test_the_runs_are_as_bad_as_they_should_be():
    """Over some seeds, each kind of fault happens, and so do all outcomes of a commit."""
    seen = set()
    for seed in range(40):
        seen |= {event[1] for event in simulate(seed)}
    assert {
        "kill", "freeze", "leave", "session expired", "abort", "commit", "transaction timed out",
        "Produce", "EndTxn", "died of a refused record", "InitProducerId", "generation",
    } <= seen  # fmt: skip
