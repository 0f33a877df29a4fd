"""Options: ``--seed N`` repeats one run, ``--seeds N`` runs more than the daily dose."""

import logging

import pytest

DOSE = 120


def pytest_addoption(parser):
    parser.addoption("--seed", type=int, default=None, help="simulate this seed only")
    parser.addoption("--seeds", type=int, default=DOSE, help="simulate so many seeds")


@pytest.fixture(autouse=True)
def quiet():
    """Workers die by the dozen here: their logs are of use for one seed at a time."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
