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

QUIET_S = 5.0


class Calm(logging.Filter):
    """Lets a message of aiokafka's through once in five seconds.

    While a broker is away it repeats itself a hundred times a second, and for a group that is new
    it reports an error that it then mends.
    """

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a message is to be logged."""
        if "GroupCoordinatorNotAvailableError" in record.getMessage():
            return False
        wording = str(record.msg)
        last = self._said.get(wording)
        if last is not None and record.created - last < QUIET_S:
            return False
        self._said[wording] = record.created
        return True


# At DEBUG aiokafka logs whole requests, and with them passwords and record values.
for _part in ("", ".client", ".cluster", ".conn", ".consumer.consumer", ".consumer.fetcher",
              ".consumer.group_coordinator", ".producer.producer", ".producer.sender"):  # fmt: skip
    logging.getLogger(f"aiokafka{_part}").setLevel(logging.WARNING)
    logging.getLogger(f"aiokafka{_part}").addFilter(Calm())

REQUEST_TIMEOUT_MS = 30_000
CONNECT_S = 10.0
"""What accepts connections and says nothing is no broker."""

FUTURE_MS = 30 * 60_000
"""How far ahead of the clock a record's timestamp may be; brokers take an hour by default."""


def options(config: Config, role: str) -> dict[str, Any]:
    """Return the options that every aiokafka client takes."""
    name = f"{config.id}-{config.instance}" if config.instance else config.id
    return {
        "bootstrap_servers": config.broker.split(","),
        "client_id": f"headrace-{name}-{role}",
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
        async with asyncio.timeout(CONNECT_S):
            await client.bootstrap()
    except (KafkaError, OSError) as error:
        with contextlib.suppress(Exception):
            await client.close()
        raise unreachable(config, error) from error
    return client


async def release(consumer: Any) -> None:
    """Stop a consumer of aiokafka's, whatever state its broker is in.

    While a broker is away, its fetcher lets the cancellation of its own tasks out of ``stop``: to
    whoever awaits that, it looks like a cancellation of his own.
    """
    stopping = asyncio.get_running_loop().create_task(consumer.stop())
    await asyncio.wait([stopping])
    if stopping.cancelled() or stopping.exception() is not None:
        with contextlib.suppress(Exception):
            await consumer._client.close()


def unreachable(config: Config, error: BaseException) -> BrokerError:
    """Say that the broker cannot be reached, and what to do."""
    why = f"silent for {CONNECT_S:g} s" if isinstance(error, TimeoutError) else type(error).__name__
    return BrokerError(
        f"no Kafka broker answers at {config.broker} ({why}): "
        "start one with `headrace dev`, or give its address with --broker HOST:PORT"
    )


async def back_off(attempt: int, *, first_s: float = 0.005, most_s: float = 0.5) -> None:
    """Sleep before the next attempt: twice as long each time, up to a bound."""
    await asyncio.sleep(min(most_s, first_s * 2**attempt))
