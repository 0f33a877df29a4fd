"""Real workers on a protected Kafka, while passwords change and tokens end."""

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest

from engine.torture import observer
from tests.broker.fleet import wait_until
from tests.security.conftest import PASSWORD, Cluster, jwt
from tests.shell import environ, error_of, headrace

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(240)]

APP = """
import logging
from typing import Annotated
from engine import App
from msgspec import Meta, Struct

class Order(Struct):
    id: int
    name: Annotated[str, Meta(pattern="^[a-z-]+$")]

app = App("{app}")
ORDERS = app.topic("{app}-orders", key_type=str, value_type=Order, partitions=2)
DONE = app.topic("{app}-done", key_type=str, value_type=Order, partitions=2)
seen = app.Table("seen", default=int, key_type=str, value_type=int)

@app.agent(ORDERS, sink=[DONE])
async def work(orders):
    async for order in orders:
        seen[order.name] += 1
        if order.name == "canary-poison":
            raise RuntimeError(order.name)
        yield order

for name in ["", *logging.root.manager.loggerDict]:
    logging.getLogger(name).setLevel(logging.DEBUG)  # a user who wants to see it all
"""


class Work:
    """A worker process of an app, its input and its output."""

    def __init__(self, cluster: Cluster, home: Path, app: str, variables: dict[str, str]) -> None:
        self._cluster, self._home, self._app = cluster, home, app
        (home / f"{app.replace('-', '_')}.py").write_text(APP.replace("{app}", app))
        self._variables = {**variables, "HEADRACE_REPLICAS": "1"}
        self._sent = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, with everything in its log."""
        variables = environ(**self._variables, HEADRACE_STATE_DIR=str(self._home / "state"))
        variables["PYTHONPATH"] += os.pathsep + str(self._home)
        with (self._home / "worker.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "engine.cli", "worker", self._app.replace("-", "_"),
                 "--log-level", "debug"],
                env=variables, cwd=self._home, stdout=log, stderr=log,
            )  # fmt: skip

    def stop(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def log(self) -> str:
        """Return what it has printed."""
        return (self._home / "worker.log").read_text(errors="replace")

    def said(self, text: str) -> Callable[[], bool]:
        """Return whether it has said something since now."""
        start = len(self.log())
        return lambda: text in self.log()[start:]

    def feed(self, count: int) -> None:
        """Send orders, past all security."""
        values = [
            msgspec.json.encode({"id": self._sent + i, "name": f"canary-{'abc'[i % 3]}"})
            for i in range(count)
        ]
        self._sent += count
        now = int(1000 * time.time())  # what is from 1970 the broker deletes soon
        rows = [(b"k%d" % i, value, now) for i, value in enumerate(values)]
        topic = f"{self._app}-orders"
        asyncio.run(observer.produce(self._cluster.broker.bootstrap, topic, rows, 2))

    def done(self) -> Counter[int]:
        """Return how often each order has come out, committed."""
        topic = f"{self._app}-done"
        seen = asyncio.run(observer.observe(self._cluster.broker.bootstrap, [topic]))
        return Counter(row["id"] for row in seen.json(topic))

    def all_done(self) -> bool:
        """Say whether everything has come out; fail if anything has twice."""
        assert self._process is not None
        assert self._process.poll() is None, self.log()[-3000:]
        done = self.done()
        assert set(done.values()) <= {1}
        return len(done) == self._sent


@pytest.fixture
def work(cluster: Cluster, tmp_path: Path) -> Iterator[Callable[..., Work]]:
    """Make workers, and end them."""
    made: list[Work] = []

    def make(app: str, **variables: str) -> Work:
        made.append(Work(cluster, tmp_path, app, variables))
        return made[-1]

    yield make
    for each in made:
        each.stop()


def test_a_password_is_changed_while_a_worker_runs(
    cluster: Cluster, work: Callable[..., Work], tmp_path: Path
) -> None:
    """Refused, it says so and waits; given the new password, it goes on where it was."""
    path = tmp_path / "password"
    path.write_text(PASSWORD)
    worker = work(
        "rotating",
        HEADRACE_BROKER=cluster.at("SCRAM"),
        HEADRACE_SECURITY_PROTOCOL="SASL_SSL",
        HEADRACE_SASL_MECHANISM="SCRAM-SHA-512",
        HEADRACE_SASL_USERNAME="alice",
        HEADRACE_SASL_PASSWORD_FILE=str(path),
        HEADRACE_SSL_CAFILE=str(cluster.ca.pem),
    )
    worker.start()
    wait_until(worker.said("is at work"), timeout_s=60, what="the worker starts")
    worker.feed(100)
    wait_until(worker.all_done, timeout_s=60, what="the orders come out")
    changed = "canary-n3w-Pa55word"
    refused = worker.said("SaslAuthenticationFailed")
    try:
        cluster.set_password(changed)
        cluster.broker.restart()  # all connections end
        worker.feed(100)
        wait_until(refused, timeout_s=60, what="the worker says that it is refused")
        path.write_text(changed)
        wait_until(worker.all_done, timeout_s=90, what="the worker goes on")
    finally:
        cluster.set_password(PASSWORD)
    log = worker.log()
    assert "SASL_SSL, SCRAM-SHA-512 as alice" in log
    assert "canary" not in log


def test_tokens_end_while_a_worker_runs(
    cluster: Cluster, work: Callable[..., Work], tmp_path: Path
) -> None:
    """Renewed in time, nobody notices; not renewed, the worker says so and waits."""
    path = tmp_path / "token"

    def renew(lifetime_s: float) -> None:
        (tmp_path / "next").write_text(jwt(lifetime_s))
        (tmp_path / "next").replace(path)

    renew(5)
    worker = work(
        "tokens",
        HEADRACE_BROKER=cluster.at("TOKEN"),
        HEADRACE_SECURITY_PROTOCOL="SASL_PLAINTEXT",
        HEADRACE_ALLOW_INSECURE_SASL="true",
        HEADRACE_SASL_MECHANISM="OAUTHBEARER",
        HEADRACE_SASL_OAUTH_TOKEN_FILE=str(path),
    )
    worker.start()
    at_work = worker.said("is at work")
    for _ in range(60):
        renew(5)
        if at_work():
            break
        time.sleep(1)
    until = time.monotonic() + 12
    while time.monotonic() < until:  # connections of 4 s each
        renew(4)
        worker.feed(20)
        time.sleep(1)
    expired = worker.said("the OAUTHBEARER token expired")
    wait_until(expired, timeout_s=60, what="the worker says that its token has expired")
    worker.feed(20)
    renew(60)
    wait_until(worker.all_done, timeout_s=90, what="the worker goes on")
    log = worker.log()
    assert "canary" not in log
    assert path.read_text() not in log


TOPIC, GROUP, TRANSACTIONAL_ID = 2, 3, 5
READ, WRITE, DESCRIBE = 3, 4, 8
LITERAL, PREFIXED = 3, 4
ALLOW = 3
LEAST = (
    (TOPIC, "least-orders", LITERAL, READ),
    (TOPIC, "least-done", LITERAL, WRITE),
    (TOPIC, "least-orders-dlq", LITERAL, WRITE),
    (TOPIC, "least-seen-changelog", LITERAL, READ),
    (TOPIC, "least-seen-changelog", LITERAL, WRITE),
    (GROUP, "least", LITERAL, READ),
    (TRANSACTIONAL_ID, "least-", PREFIXED, WRITE),
    (TRANSACTIONAL_ID, "least-", PREFIXED, DESCRIBE),
)
"""What docs/security.md says that a worker needs."""


async def allow(bootstrap: str, principal: str) -> None:
    """Give a user these rights and no other."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        for kind, name, pattern, operation in LEAST:
            answer = await admin._send_request(
                CreateAclsRequest(kind, name, pattern, principal, "*", operation, ALLOW)
            )
            assert [code for code, *_ in answer.creation_responses] == [0]
    finally:
        await admin.close()


def test_the_rights_that_the_docs_name_are_enough(
    cluster: Cluster, work: Callable[..., Work], tmp_path: Path
) -> None:
    """To read, to keep a table, to write results and dead letters, to commit; and again."""
    cluster.set_password("canary-d4ve", "dave")
    topics: dict[str, dict[str, str]] = {"least-orders": {}, "least-done": {},
        "least-orders-dlq": {}, "least-seen-changelog": {"cleanup.policy": "compact"}}  # fmt: skip
    asyncio.run(observer.create(cluster.broker.bootstrap, topics, 2))
    asyncio.run(allow(cluster.broker.bootstrap, "User:dave"))
    worker = work(
        "least",
        HEADRACE_BROKER=cluster.at("SCRAM"),
        HEADRACE_SECURITY_PROTOCOL="SASL_SSL",
        HEADRACE_SASL_MECHANISM="SCRAM-SHA-512",
        HEADRACE_SASL_USERNAME="dave",
        HEADRACE_SASL_PASSWORD="canary-d4ve",
        HEADRACE_SSL_CAFILE=str(cluster.ca.pem),
    )
    bad = [(b"k", b'{"id": "canary-in-a-letter"}', int(1000 * time.time()))]

    def letters() -> int:
        seen = asyncio.run(observer.observe(cluster.broker.bootstrap, ["least-orders-dlq"]))
        return len(seen.topics["least-orders-dlq"])

    for starts in (1, 2):  # the second time its table is there to be restored
        worker.start()
        wait_until(worker.said("is at work"), timeout_s=60, what="the worker starts")
        worker.feed(50)
        asyncio.run(observer.produce(cluster.broker.bootstrap, "least-orders", bad, 2))
        wait_until(worker.all_done, timeout_s=60, what="the orders come out")
        # the bad order was sent last: the good ones may be out before it was read
        wait_until(lambda n=starts: letters() >= n, timeout_s=60, what="the bad order is put aside")
        worker.stop()

    assert letters() == 2
    assert "canary" not in worker.log()


def test_commands_take_credentials_from_the_environment_and_never_as_options(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Topics, ingest; what is wrong is told in one sentence without the secret."""
    variables = {
        "HEADRACE_BROKER": cluster.at("SCRAM"),
        "HEADRACE_SECURITY_PROTOCOL": "SASL_SSL",
        "HEADRACE_SASL_MECHANISM": "SCRAM-SHA-512",
        "HEADRACE_SASL_USERNAME": "alice",
        "HEADRACE_SASL_PASSWORD": PASSWORD,
        "HEADRACE_SSL_CAFILE": str(cluster.ca.pem),
    }
    lines = tmp_path / "orders.jsonl"
    lines.write_text('{"id": 1}\n{"id": 2}\n')
    sent = headrace(
        "ingest", lines, "--topic", "by-hand", "--partitions", 1, "--debug", **variables
    )
    assert "2 records to by-hand" in sent.stdout, sent.stderr
    shown = headrace("topics", "list", "--json", **variables)
    assert {"name": "by-hand", "partitions": 1, "replicas": 1, "records": 2} in msgspec.json.decode(
        shown.stdout
    )
    wrong = {**variables, "HEADRACE_SASL_PASSWORD": "canary-wrong"}
    for command in (
        ("topics", "list"),
        ("topics", "create", "new"),
        ("ingest", lines, "--topic", "by-hand"),
        ("worker", "agents"),
        ("demo", "--events", 10, "--broker", cluster.at("SCRAM")),
    ):
        done = headrace(*command, **wrong)
        assert "it refuses the credentials of alice" in error_of(done), command
        assert "canary" not in done.stdout + done.stderr
    assert "canary" not in sent.stderr + shown.stderr
