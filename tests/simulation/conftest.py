"""What a simulation changes in its process is put back."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """A run of seeds silences the log; the tests after it listen to theirs."""
    yield
    logging.disable(logging.NOTSET)
