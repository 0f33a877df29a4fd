"""Connections: how every client of ours reaches the cluster."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.conn import CloseReason, create_conn
from aiokafka.errors import KafkaConnectionError, KafkaError, SaslAuthenticationFailed
from aiokafka.protocol.metadata import MetadataRequest

from engine.errors import BrokerError
from engine.kafka import quiet
from engine.kafka.credentials import credentials_of
from engine.kafka.refusal import refusal

if TYPE_CHECKING:
    from engine.config import Config

quiet.silence()

REQUEST_TIMEOUT_MS = 30_000
METADATA_MS = 15_000
"""New partitions are noticed within so long; aiokafka's default is five minutes."""
CONNECT_S = 10.0
"""What accepts connections and says nothing is no broker."""

FUTURE_MS = 30 * 60_000
"""How far ahead of the clock a record's timestamp may be; brokers take an hour by default."""


class Client(AIOKafkaClient):
    """aiokafka's client, with credentials and certificates read anew for each connection.

    aiokafka takes them once, when a client is made, and reads the attributes at each connection.
    """

    def __init__(self, config: Config, role: str) -> None:
        self._security = config.security
        self._credentials = credentials_of(config.security)
        super().__init__(**options(config, role))

    @property
    def _ssl_context(self) -> ssl.SSLContext | None:
        return self._credentials.context()

    @_ssl_context.setter
    def _ssl_context(self, _: object) -> None:
        """What aiokafka was given is a placeholder."""

    @property
    def _sasl_plain_password(self) -> str:
        return self._credentials.password()

    @_sasl_plain_password.setter
    def _sasl_plain_password(self, _: object) -> None:
        """What aiokafka was given is a placeholder."""

    async def bootstrap(self) -> None:
        """Connect; where aiokafka only says that it could not, raise the reason."""
        try:
            await super().bootstrap()
        except KafkaConnectionError as error:
            raise await self._reason(error) from error
        if self._security.sasl_mechanism == "OAUTHBEARER" and not self.cluster.brokers():
            raise SaslAuthenticationFailed("the token")  # aiokafka does not look at the answer

    async def _reason(self, error: Exception) -> BaseException:
        """Try once more, to see why: aiokafka tells it to its log only."""
        host, port, _ = self.hosts[0]
        try:
            connection = await create_conn(
                host,
                port,
                client_id=self._client_id,
                request_timeout_ms=self._request_timeout_ms,
                ssl_context=self._ssl_context,
                security_protocol=self._security_protocol,
                sasl_mechanism=self._sasl_mechanism,
                sasl_plain_username=self._sasl_plain_username,
                sasl_plain_password=self._sasl_plain_password,
                sasl_oauth_token_provider=self._sasl_oauth_token_provider,
            )
            try:
                await connection.send(MetadataRequest([]))
            finally:
                await connection.close()
        except (KafkaError, OSError) as reason:
            return reason
        return error

    async def _get_conn(
        self, node_id: Any, *, group: ConnectionGroup = ConnectionGroup.DEFAULT, **options: Any
    ) -> Any:
        """Return a connection, or None where there is none.

        One that is lost is closed before aiokafka has noticed: where asyncio drops what is written
        to it, uvloop raises a RuntimeError, which nobody expects of a broker that is away. It would
        end aiokafka's metadata task for good; so would what a broker answers
        in SCRAM. Without metadata no request finds its way again.
        """
        known = self._conns.get((node_id, group))
        writer = known._writer if known is not None else None
        if writer is not None and writer.transport.is_closing():
            known.close(reason=CloseReason.CONNECTION_BROKEN)
        try:
            return await super()._get_conn(node_id, group=group, **options)
        except (ValueError, LookupError) as error:
            quiet.log.error("no connection to node %s: %s", node_id, error)
            return None


def options(config: Config, role: str) -> dict[str, Any]:
    """Return the options that every aiokafka client takes.

    Secrets are not among them, but placeholders with which no connection comes about: only
    :class:`Client` has them.
    """
    security = config.security
    name = f"{config.id}-{config.instance}" if config.instance else config.id
    given: dict[str, Any] = {
        "bootstrap_servers": config.broker.split(","),
        "client_id": f"headrace-{name}-{role}",
        "request_timeout_ms": REQUEST_TIMEOUT_MS,
        "retry_backoff_ms": 50,
        "metadata_max_age_ms": METADATA_MS,
        "security_protocol": security.security_protocol,
    }
    if security.encrypted:
        given["ssl_context"] = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if security.authenticated:
        given["sasl_mechanism"] = security.sasl_mechanism
        given["sasl_plain_username"] = security.sasl_username
        given["sasl_plain_password"] = ""
        given["sasl_oauth_token_provider"] = credentials_of(security).tokens
    return given


def make_consumer(config: Config, role: str, **more: Any) -> AIOKafkaConsumer:
    """Return a consumer of aiokafka's that connects as :class:`Client` does."""
    consumer = AIOKafkaConsumer(**options(config, role), **more)
    consumer._client = Client(config, role)
    return consumer


def make_admin(config: Config, role: str) -> AIOKafkaAdminClient:
    """Return an admin client of aiokafka's that connects as :class:`Client` does."""
    admin = AIOKafkaAdminClient(**options(config, role))
    admin._client = Client(config, role)
    return admin


async def connect(config: Config, role: str) -> AIOKafkaClient:
    """Return a connected client.

    Raises:
        BrokerError: nobody answers at the address, or not to us; the message says why.
    """
    client = Client(config, role)
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
    """Say that the broker cannot be reached, why, and what to do."""
    refused = refusal(config.security, error)
    if refused:
        return BrokerError(f"no connection to the broker at {config.broker}: {refused}")
    why = f"silent for {CONNECT_S:g} s" if isinstance(error, TimeoutError) else type(error).__name__
    return BrokerError(
        f"no Kafka broker answers at {config.broker} ({why}): "
        "start one with `headrace dev`, or give its address with --broker HOST:PORT"
    )


async def back_off(attempt: int, *, first_s: float = 0.005, most_s: float = 0.5) -> None:
    """Sleep before the next attempt: twice as long each time, up to a bound."""
    await asyncio.sleep(min(most_s, first_s * 2**attempt))
