"""Every row of the failure catalogue in the dose of the continuous build."""

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.broker.conftest import need_kafka
from tests.faults.catalogue import Place, Row
from tests.faults.cluster import Site
from tests.faults.rows import ROWS

SEED = 20_261_124
CI_ROWS = [row for row in ROWS if row.ci]

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(180)]


class Sites:
    """The cluster that the last row needed, for as long as the next one needs the same."""

    def __init__(self, homes: pytest.TempPathFactory) -> None:
        self._homes = homes
        self._open = contextlib.ExitStack()
        self._site: tuple[Place, Site] | None = None

    def get(self, place: Place) -> Site:
        """Return such a cluster."""
        if self._site is None or self._site[0] is not place:
            self.close()
            site = self._open.enter_context(place(self._homes.mktemp("kafka")))
            self._site = place, site
        return self._site[1]

    def close(self) -> None:
        """Stop the cluster: it is not needed any more, or a failure has spoiled it."""
        self._site = None
        self._open.close()


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    """Clusters, started when they are needed."""
    need_kafka()
    found = Sites(tmp_path_factory)
    yield found
    found.close()


@pytest.mark.parametrize("row", CI_ROWS, ids=[row.name for row in CI_ROWS])
def test_row(row: Row, sites: Sites, tmp_path: Path) -> None:
    """The fault strikes as often as the row says; what the row expects comes of it."""
    try:
        row.run(sites.get(row.place), tmp_path, random.Random(f"{SEED} {row.name}"), row.ci)
    except BaseException:
        sites.close()
        raise
