"""Brokers, as the broker tests have them."""

from tests.broker.conftest import fresh_kafka

__all__ = ["fresh_kafka"]
