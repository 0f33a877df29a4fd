"""Options: ``--seed N`` repeats one run, ``--seeds N`` runs another number than the daily dose."""

import logging

import pytest


def pytest_addoption(parser):
    parser.addoption("--seed", type=int, help="simulate this seed only")
    parser.addoption("--seeds", type=int, help="simulate so many seeds")


@pytest.fixture(autouse=True)
def quiet(pytestconfig):
    """Workers die by the dozen here: their logs are of use for one seed at a time."""
    if pytestconfig.getoption("--seed", default=None) is None:
        logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
