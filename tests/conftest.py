"""What holds for all tests."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from engine import security

settings.register_profile("headrace", settings(), deadline=None)  # the machine may be busy
settings.load_profile("headrace")

LONGEST = (
    "faults/test_catalogue.py", "simulation/test_simulation.py", "broker/test_exactly_once.py",
    "faults/test_crash_points.py", "simulation/test_mutants.py", "broker/test_cli.py",
    "security/test_workers.py", "broker/test_demo.py", "broker/test_gaps.py",
    "torture/test_command.py", "broker/test_standby.py",
)  # fmt: skip
"""The files that take longest, which processes that share the tests are to begin with."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first: the others fill up what time is left beside them."""
    place = {name: number for number, name in enumerate(LONGEST)}

    def rank(item: pytest.Item) -> int:
        name = "/".join(item.path.parts[-2:])
        return place.get(name, len(place))

    items.sort(key=rank)  # within a file, and among the others, the order stays


@pytest.fixture(autouse=True)
def own_secrets() -> Iterator[None]:
    """Forget a test's secrets after it: a process hides all that it has ever known in its log."""
    before = set(security._known)
    yield
    security._known.clear()
    security._known.update(before)
