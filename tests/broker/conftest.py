"""Real Kafka brokers: one for the session, or a fresh one for a test that wants it to itself."""

import os
from collections.abc import Iterator

import pytest

from engine.devbroker import DevBroker, kafka_available, start_kafka


def _need_kafka() -> None:
    """A laptop may be without Kafka; the continuous build may not."""
    reason = kafka_available()
    if reason is not None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"the broker tests need Kafka: {reason}")
        pytest.skip(reason)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevBroker]:
    """Apache Kafka, shared: use names of your own."""
    _need_kafka()
    with start_kafka(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


@pytest.fixture
def fresh_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevBroker]:
    """Apache Kafka with nothing on it, for one test."""
    _need_kafka()
    with start_kafka(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker
