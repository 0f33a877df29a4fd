"""One Kafka with a listener for each way to be let in, or not."""

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.devbroker import DevBroker, _free_port, _jars, start_kafka
from tests.broker.conftest import need_kafka
from tests.security.certificates import Authority

PASSWORD = "canary-Pa55word-7391"
PLAIN_PASSWORD = "canary-pl4in-2284"

_MODULES = "org.apache.kafka.common.security"
_SASL = {
    "PLAIN": f'{_MODULES}.plain.PlainLoginModule required user_bob="{PLAIN_PASSWORD}";',
    "SCRAM-SHA-256": f"{_MODULES}.scram.ScramLoginModule required;",
    "SCRAM-SHA-512": f"{_MODULES}.scram.ScramLoginModule required;",
    "OAUTHBEARER": f"{_MODULES}.oauthbearer.OAuthBearerLoginModule required "
    'unsecuredLoginStringClaim_sub="broker";',
}
_SUPER = ("ANONYMOUS", "alice", "ann", "bob", "carol", "CN=client", "CN=locked", "CN=renewed")
"""Who may do all; anybody else may do what the test allows."""

_LISTENERS = {
    "CLEAR": ("SASL_PLAINTEXT", "PLAIN"),
    "SCRAM": ("SASL_SSL", "SCRAM-SHA-512"),
    "SHORTER": ("SASL_SSL", "SCRAM-SHA-256"),
    "TOKEN": ("SASL_PLAINTEXT", "OAUTHBEARER"),
    "MUTUAL": ("SSL", ""),
    "EXPIRED": ("SSL", ""),
    "ELSEWHERE": ("SSL", ""),
}


class Cluster:
    """A broker and its listeners.

    Attributes:
        ca: signed the broker's certificates and the good client's.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ca = Authority(directory, "ours")
        self.others = Authority(directory, "theirs")
        self.ports = {name: _free_port() for name in _LISTENERS}
        self.broker: DevBroker
        self._java = [str(shutil.which("java")), "-Xmx128m", "-cp", f"{_jars(None)}/*"]

    def start(self) -> None:
        """Start the broker and let alice in."""
        plain, controller = _free_port(), _free_port()
        kinds = {name: kind for name, (kind, _) in _LISTENERS.items()}
        overrides = {
            "listeners": ",".join(
                f"{name}://127.0.0.1:{port}"
                for name, port in {"BROKER": plain, "CONTROLLER": controller, **self.ports}.items()
            ),
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listener.security.protocol.map": ",".join(
                f"{name}:{kind}"
                for name, kind in {
                    "BROKER": "PLAINTEXT",
                    "CONTROLLER": "PLAINTEXT",
                    **kinds,
                }.items()
            ),
            "ssl.keystore.type": "PEM",
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.ca.pem),
            "ssl.keystore.location": str(self.ca.issue("broker")),
            "listener.name.expired.ssl.keystore.location": str(self.ca.issue("old", days=-1)),
            "listener.name.elsewhere.ssl.keystore.location": str(
                self.ca.issue("elsewhere", host="kafka.example")
            ),
            "listener.name.mutual.ssl.client.auth": "required",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": ";".join(f"User:{name}" for name in _SUPER),
            "sasl.enabled.mechanisms": ",".join(_SASL),
        }
        for name, (_, mechanism) in _LISTENERS.items():
            if mechanism:
                prefix = f"listener.name.{name.lower()}"
                overrides[f"{prefix}.sasl.enabled.mechanisms"] = mechanism
                overrides[f"{prefix}.{mechanism.lower()}.sasl.jaas.config"] = _SASL[mechanism]
        # a connection ends with the token it was made with
        overrides["listener.name.token.oauthbearer.connections.max.reauth.ms"] = "3600000"
        self.broker = start_kafka(self.directory / "kafka", overrides=overrides, port=plain)
        self.set_password(PASSWORD)
        self.set_password(PASSWORD, "ann", 256)

    def set_password(self, password: str, user: str = "alice", bits: int = 512) -> None:
        """Give a user a password."""
        users = f"SCRAM-SHA-{bits}=[iterations=4096,password={password}]"
        done = subprocess.run(
            [*self._java, "kafka.admin.ConfigCommand", "--bootstrap-server", self.broker.bootstrap,
             "--alter", "--add-config", users, "--entity-type", "users", "--entity-name", user],
            check=False, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    def at(self, listener: str) -> str:
        """Return a listener's address."""
        return f"127.0.0.1:{self.ports[listener]}"


def jwt(lifetime_s: float, subject: str = "carol") -> str:
    """Return a token as Kafka's unsecured validator takes it."""
    now = time.time()
    claims = {"sub": subject, "iat": now - 5, "exp": now + lifetime_s, "scope": "canary-cl4im"}

    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'none'})}.{part(claims)}."


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The broker, shared: topics of one's own."""
    need_kafka()
    cluster = Cluster(tmp_path_factory.mktemp("secured"))
    cluster.start()
    with cluster.broker:
        yield cluster
