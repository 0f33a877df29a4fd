"""A real Kafka broker, started once for the tests that need one."""

import os
from collections.abc import Iterator

import pytest

from engine.devbroker import DevBroker, kafka_available, start_kafka


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevBroker]:
    """Apache Kafka. A laptop may be without it; the continuous build may not."""
    reason = kafka_available()
    if reason is not None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"the broker tests need Kafka: {reason}")
        pytest.skip(reason)
    with start_kafka(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker
