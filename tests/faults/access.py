"""Row 11: a worker's rights are taken away, and given back."""

import asyncio
import contextlib
import random
import re
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest, DeleteAclsRequest

from tests.broker.fleet import wait_until
from tests.faults.catalogue import catalogue
from tests.faults.cluster import Site, single
from tests.faults.processes import ALL
from tests.faults.trial import Trial

TOPIC, GROUP, TRANSACTIONAL_ID = 2, 3, 5
EVERY, READ, WRITE = 2, 3, 4
DENY, ALLOW = 2, 3
LITERAL, PREFIXED = 3, 4
EVERYBODY = ("User:ANONYMOUS", "*")

Right = tuple[int, str, int, int]
"""Kind of resource, its name, kind of pattern, operation."""


def rights(trial: Trial) -> list[Right]:
    """Return the rights to take away, one for each thing that a transaction touches."""
    return [
        (TOPIC, trial.job.topic("enriched-events"), LITERAL, WRITE),
        (TOPIC, trial.job.changelog("counts"), LITERAL, WRITE),
        (TRANSACTIONAL_ID, trial.group, PREFIXED, WRITE),
        (GROUP, trial.group, LITERAL, READ),
    ]


SAID = re.compile(r"(?i)authori|permission|error (29|30|53)\b")


def guarded(home: Path) -> AbstractContextManager[Site]:
    """Start one node that asks for rights where there are rules, and takes all else."""
    return single(
        home,
        {
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found": "true",
        },
    )


async def _change(bootstrap: str, *requests: object) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        for request in requests:
            answer = await admin._send_request(request)
            for results in (getattr(answer, name, []) for name in _RESULTS):
                assert all(code == 0 for code, *_ in results), answer
    finally:
        await admin.close()


_RESULTS = ("creation_responses", "filter_responses")


@contextlib.contextmanager
def denied(site: Site, right: Right) -> Iterator[None]:
    """Take a right away for the block: everything is allowed on the resource but this."""
    kind, name, pattern, operation = right
    rules = [(EVERY, ALLOW), (operation, DENY)]
    asyncio.run(
        _change(
            site.bootstrap,
            *(CreateAclsRequest(kind, name, pattern, *EVERYBODY, *rule) for rule in rules),
        )
    )
    try:
        yield
    finally:  # the deny first: with the other gone, nothing at all would be allowed
        asyncio.run(
            _change(
                site.bootstrap,
                *(
                    DeleteAclsRequest(kind, name, pattern, *EVERYBODY, *rule)
                    for rule in reversed(rules)
                ),
            )
        )


@catalogue.row(
    11, "the right to write an output, a changelog, a transaction, or to be in the group is gone",
    unit="denials", ci=4, nightly=8, at_once=4, invariants=ALL, place=guarded,
)  # fmt: skip
def denials(site: Site, home: Path, rng: random.Random, dose: int) -> None:
    """Nothing is committed meanwhile and the workers say why; given back, the work goes on."""
    with Trial(site, home, rng) as trial:
        trial.feed(1_000)
        trial.at_work("one", "two")
        with trial.streaming(per_s=300):
            for number in range(dose):
                right = rights(trial)[number % 4]
                heard = trial.listen()
                with denied(site, right):
                    wait_until(
                        lambda heard=heard: SAID.search(heard()),
                        timeout_s=30,
                        what=f"nobody says that a right is missing: {right}",
                    )
                    time.sleep(2)
                for name in ("one", "two"):
                    worker = trial.fleet.workers[name]
                    if worker.poll() is not None:
                        assert worker.returncode != 0, "it ended as if all was well"
                        trial.start(name)
                trial.gone_on()
        trial.settle()
