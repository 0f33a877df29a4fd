"""Connections: how every client of ours reaches the cluster."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from engine.errors import BrokerError

if TYPE_CHECKING:
    from engine.config import Config

# At DEBUG aiokafka logs whole requests, and with them passwords and record values.
for _name in ("aiokafka", "aiokafka.conn", "aiokafka.producer"):
    logging.getLogger(_name).setLevel(logging.WARNING)

REQUEST_TIMEOUT_MS = 30_000
FUTURE_MS = 30 * 60_000
"""How far ahead of the clock a record's timestamp may be; brokers take an hour by default."""


def options(config: Config, role: str) -> dict[str, Any]:
    """Return the options that every aiokafka client takes."""
    return {
        "bootstrap_servers": config.broker.split(","),
        "client_id": f"headrace-{config.id}-{role}",
        "request_timeout_ms": REQUEST_TIMEOUT_MS,
        "retry_backoff_ms": 50,
    }


async def connect(config: Config, role: str) -> AIOKafkaClient:
    """Return a connected client.

    Raises:
        BrokerError: nobody answers at the address.
    """
    client = AIOKafkaClient(**options(config, role))
    try:
        await client.bootstrap()
    except (KafkaError, OSError) as error:
        with contextlib.suppress(Exception):
            await client.close()
        raise unreachable(config, error) from error
    return client


def unreachable(config: Config, error: BaseException) -> BrokerError:
    """Say that the broker cannot be reached, and what to do."""
    return BrokerError(
        f"no Kafka broker answers at {config.broker} ({type(error).__name__}): "
        "start one with `headrace dev`, or give its address with --broker HOST:PORT"
    )


async def back_off(attempt: int, *, first_s: float = 0.005, most_s: float = 0.5) -> None:
    """Sleep before the next attempt: twice as long each time, up to a bound."""
    await asyncio.sleep(min(most_s, first_s * 2**attempt))
