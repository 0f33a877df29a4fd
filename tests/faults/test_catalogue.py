"""Every row of the failure catalogue in the dose of the continuous build."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.broker.conftest import need_kafka
from tests.faults.catalogue import Row
from tests.faults.rows import ROWS
from tests.faults.sites import Sites

SEED = 20_261_124
CI_ROWS = [row for row in ROWS if row.ci]

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    """Clusters, started when they are needed."""
    need_kafka()
    with Sites(lambda: tmp_path_factory.mktemp("kafka")) as found:
        yield found


@pytest.mark.parametrize("row", CI_ROWS, ids=[row.name for row in CI_ROWS])
def test_row(row: Row, sites: Sites, tmp_path: Path) -> None:
    """The fault strikes as often as the row says; what the row expects comes of it."""
    try:
        row.run(sites.get(row.place), tmp_path, random.Random(f"{SEED} {row.name}"), row.ci)
    except BaseException:
        sites.close()
        raise
