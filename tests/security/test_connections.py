"""Who is let in by a real Kafka, who is not, and what they are told."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from engine import config
from engine.connect.loader import Loader
from engine.errors import BrokerError
from engine.kafka.admin import KafkaAdmin
from engine.kafka.log import KafkaLog
from engine.record import TP
from engine.topic import Contract, Topic, TopicConfig
from tests.security.conftest import PASSWORD, PLAIN_PASSWORD, Cluster, jwt

pytestmark = pytest.mark.broker

CLEAR = {"security_protocol": "SASL_PLAINTEXT", "allow_insecure_sasl": True}


def scram(cluster: Cluster, **changes: Any) -> dict[str, Any]:
    given = {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_username": "alice",
        "sasl_password": PASSWORD,
        "ssl_cafile": cluster.ca.pem,
    }
    return {**given, **changes}


def tls(cluster: Cluster, **changes: Any) -> dict[str, Any]:
    return {"security_protocol": "SSL", "ssl_cafile": cluster.ca.pem, **changes}


async def provider() -> str:
    return jwt(60)


async def slow() -> str:
    await asyncio.sleep(30)
    return jwt(60)


def broken() -> str:
    raise RuntimeError("canary-in-an-error")


GOOD = {
    "PLAIN, in the clear and allowed by name": lambda c: (
        "CLEAR",
        {**CLEAR, "sasl_mechanism": "PLAIN", "sasl_username": "bob",
         "sasl_password": PLAIN_PASSWORD},
    ),
    "SCRAM-SHA-512 over TLS": lambda c: ("SCRAM", scram(c)),
    "SCRAM-SHA-256 over TLS": lambda c: (
        "SHORTER", scram(c, sasl_mechanism="SCRAM-SHA-256", sasl_username="ann")
    ),
    "OAUTHBEARER, a token": lambda c: (
        "TOKEN", {**CLEAR, "sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token": jwt(60)}
    ),
    "OAUTHBEARER, a provider": lambda c: (
        "TOKEN", {**CLEAR, "sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_provider": provider}
    ),
    "mTLS": lambda c: ("MUTUAL", tls(c, ssl_certfile=c.ca.issue("client"))),
    "mTLS with an encrypted key": lambda c: (
        "MUTUAL",
        tls(c, ssl_certfile=c.ca.issue("locked", password="k3y"), ssl_key_password="k3y"),
    ),
    "a wrong name, allowed by name": lambda c: ("ELSEWHERE", tls(c, ssl_check_hostname=False)),
}  # fmt: skip


@pytest.mark.parametrize("way", GOOD)
def test_every_client_of_ours_is_let_in(cluster: Cluster, way: str) -> None:
    """The admin client makes a topic, the producer fills it, the consumer reads it."""
    listener, security = GOOD[way](cluster)
    topic = f"way-{list(GOOD).index(way)}"
    given = {"id": "secured", "broker": cluster.at(listener), "security": security}
    settings = config.make(given, {})

    async def use() -> list[bytes | None]:
        admin, log = KafkaAdmin(settings), KafkaLog(settings)
        try:
            await admin.create([Topic(topic, Contract.of(topic, bytes), TopicConfig(partitions=1))])
            async with Loader(settings) as loader:
                await loader.load(topic, 1, [(b"k", b"v", 1000)])
            _, end = (await log.bounds([TP(topic, 0)]))[TP(topic, 0)]
            return [v async for batch in log.read({TP(topic, 0): (0, end)}) for v in batch.values]
        finally:
            await log.close()
            await admin.close()

    assert asyncio.run(use()) == [b"v"]


REFUSED = {
    "a wrong password": (
        lambda c: ("SCRAM", scram(c, sasl_password="canary-wrong-1")),
        "refuses the credentials of alice (SCRAM-SHA-512): check sasl_username and sasl_password",
    ),
    "a mechanism that is not there": (
        lambda c: ("SCRAM", scram(c, sasl_mechanism="SCRAM-SHA-256")),
        "it has no sasl_mechanism SCRAM-SHA-256",
    ),
    "a broker's certificate of another CA": (
        lambda c: ("SCRAM", scram(c, ssl_cafile=c.others.pem)),
        "signed by a CA that ssl_cafile does not have",
    ),
    "a broker's certificate that the system does not know": (
        lambda c: ("SCRAM", scram(c, ssl_cafile=None)),
        "signed by a CA that ssl_cafile does not have",
    ),
    "an expired broker's certificate": (
        lambda c: ("EXPIRED", tls(c)), "the broker's certificate has expired"
    ),
    "a broker's certificate for another name": (
        lambda c: ("ELSEWHERE", tls(c)), "is for another address than the one we connect to"
    ),
    "no certificate of ours": (
        lambda c: ("MUTUAL", tls(c)), "Give ssl_certfile and ssl_keyfile"
    ),
    "a certificate of ours by another CA": (
        lambda c: ("MUTUAL", tls(c, ssl_certfile=c.others.issue("stranger"))),
        "expired, or is its CA not the broker's?",
    ),
    "an expired certificate of ours": (
        lambda c: ("MUTUAL", tls(c, ssl_certfile=c.ca.issue("worn", days=-1))),
        "expired, or is its CA not the broker's?",
    ),
    "a key without its password": (
        lambda c: ("MUTUAL", tls(c, ssl_certfile=c.ca.issue("shut", password="k3y"))),
        "shut.pem: not pem, or its password is wrong",
    ),
    "a file that is not there": (
        lambda c: ("SCRAM", scram(c, ssl_cafile="/nowhere.pem")),
        "/nowhere.pem: No such file or directory",
    ),
    "an expired token": (
        lambda c: (
            "TOKEN", {**CLEAR, "sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token": jwt(-60)}
        ),
        "the OAUTHBEARER token expired",
    ),
    "a token that is none": (
        lambda c: (
            "TOKEN", {**CLEAR, "sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token": "canary-no-jwt"}
        ),
        "refuses the OAUTHBEARER token",
    ),
    "a provider that raises": (
        lambda c: (
            "TOKEN", {**CLEAR, "sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_provider": broken}
        ),
        "no OAUTHBEARER token: the provider raised RuntimeError",
    ),
    "a provider that hangs": (
        lambda c: (
            "TOKEN", {**CLEAR, "sasl_mechanism": "OAUTHBEARER", "oauth_timeout_s": 0.2,
                      "sasl_oauth_token_provider": slow}
        ),
        "the provider took more than 0.2 s",
    ),
    "no security where TLS is wanted": (
        lambda c: ("SCRAM", {}), "it may want TLS or SASL. Check security_protocol"
    ),
    "no security where SASL is wanted": (
        lambda c: ("CLEAR", {}), "it may want TLS or SASL. Check security_protocol"
    ),
    "TLS where there is none": (
        lambda c: ("CLEAR", tls(c)), "is that a TLS listener? Check security_protocol"
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", REFUSED)
def test_who_is_not_let_in_is_told_why(
    cluster: Cluster, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    """In one sentence, from each kind of client, soon, and without a secret anywhere."""
    make, reason = REFUSED[way]
    listener, security = make(cluster)
    given = {"id": "stranger", "broker": cluster.at(listener), "security": security}
    settings = config.make(given, {})

    async def told(client: Any, use: Any) -> str:
        try:
            async with asyncio.timeout(30):
                with pytest.raises(BrokerError) as caught:
                    await use()
            return str(caught.value)
        finally:
            await client.close()
            await asyncio.sleep(0.05)  # asyncio closes a socket whose handshake failed later

    async def ask() -> list[str]:
        admin, log = KafkaAdmin(settings), KafkaLog(settings)
        loader = Loader(settings)
        return [
            await told(admin, admin.describe),
            await told(log, lambda: log.bounds([TP("any", 0)])),
            await told(loader._outlet, loader.__aenter__),
        ]

    for sentence in asyncio.run(ask()):
        assert sentence.startswith(f"no connection to the broker at {cluster.at(listener)}: ")
        assert reason in sentence
        assert "\n" not in sentence
        assert "canary" not in sentence
    assert "canary" not in caplog.text


def test_a_certificate_that_is_renewed_is_used_without_a_restart(cluster: Cluster) -> None:
    """The same process, the same settings: first an expired file, then a good one."""
    path = cluster.ca.issue("renewed", days=-1)
    given = {"id": "renewed", "broker": cluster.at("MUTUAL"),
             "security": tls(cluster, ssl_certfile=path)}  # fmt: skip
    settings = config.make(given, {})

    async def look() -> None:
        admin = KafkaAdmin(settings)
        try:
            await admin.describe()
        finally:
            await admin.close()
            await asyncio.sleep(0.05)

    with pytest.raises(BrokerError, match="expired"):
        asyncio.run(look())
    assert cluster.ca.issue("renewed") == path
    asyncio.run(look())
    path.write_text("half of it")  # being replaced: the last good one stays in force
    asyncio.run(look())


def test_the_clear_is_never_tried_when_the_protected_fails(
    cluster: Cluster, tmp_path: Path
) -> None:
    """A listener that takes anybody, asked for TLS, gets no request."""
    given = {"id": "never", "broker": cluster.broker.bootstrap, "security": tls(cluster)}
    settings = config.make(given, {})

    async def look() -> None:
        admin = KafkaAdmin(settings)
        try:
            await admin.describe()
        finally:
            await admin.close()
            await asyncio.sleep(0.05)

    with pytest.raises(BrokerError, match="TLS listener"):
        asyncio.run(look())
