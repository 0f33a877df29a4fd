"""Real Kafka brokers: one for the session, or a fresh one for a test that wants it to itself."""

from collections.abc import Iterator

import pytest

from engine.devbroker import DevBroker, kafka_available, start_kafka
from tests.shell import missing


def need_kafka() -> None:
    """Go on only where Java, Maven and Kafka's jars are."""
    reason = kafka_available()
    if reason is not None:
        missing(f"the broker tests need Kafka: {reason}")


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevBroker]:
    """Apache Kafka, shared: use names of your own."""
    need_kafka()
    with start_kafka(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


@pytest.fixture
def fresh_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevBroker]:
    """Apache Kafka with nothing on it, for one test."""
    need_kafka()
    with start_kafka(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker
