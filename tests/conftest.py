"""What holds for all tests."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from engine import security

settings.register_profile("headrace", settings(), deadline=None)  # the machine may be busy
settings.load_profile("headrace")


@pytest.fixture(autouse=True)
def own_secrets() -> Iterator[None]:
    """Forget a test's secrets after it: a process hides all that it has ever known in its log."""
    before = set(security._known)
    yield
    security._known.clear()
    security._known.update(before)
