"""What holds for all tests."""

from collections.abc import Iterator

import pytest

from engine import security


@pytest.fixture(autouse=True)
def own_secrets() -> Iterator[None]:
    """Forget a test's secrets after it: a process hides all that it has ever known in its log."""
    before = set(security._known)
    yield
    security._known.clear()
    security._known.update(before)
