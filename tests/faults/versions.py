"""Row 19: contract and state change while the job runs, one worker after the other."""

import asyncio
import json
import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import msgspec

from engine.torture import observer
from tests.broker.fleet import wait_until
from tests.faults.catalogue import catalogue
from tests.faults.cluster import Site, single
from tests.faults.trial import PARTITIONS, Event, Trial

LARGEST = 1_000
USERS = 200


class Upgrade(Trial):
    """The job of :mod:`tests.faults.orders`, and what its receipts must be."""

    def __init__(self, site: Site, home: Path, rng: random.Random) -> None:
        super().__init__(site, home, rng, "tests.faults.orders")
        prefix = self.job.prefix
        self.group, self.input = f"{prefix}orders", f"{prefix}orders-in"
        self.receipts, self.letters = f"{prefix}receipts", f"{self.input}-dlq"
        self.changelog = f"{self.group}-totals-changelog"
        self._events = self._orders()

    async def create_topics(self) -> None:
        """Create the input; its times are old."""
        await observer.create(self.site.bootstrap, {self.input: {"retention.ms": "-1"}}, PARTITIONS)

    def _orders(self) -> Iterator[Event]:
        number = 0
        while True:
            user = f"user-{self.rng.randrange(USERS)}"
            order = {"id": number, "user": user, "amount": self.rng.randrange(1, LARGEST)}
            if number % 50 == 0:
                order["amount"] += LARGEST  # too much for the second version
            if number % 3 == 0:
                order["coupon"] = "spring"
            yield user.encode(), json.dumps(order).encode(), 1_736_121_600_000 + number, []
            number += 1

    def check(self) -> None:
        """Each order is in one receipt or one letter; the receipts add up; so does the table."""
        topics = [self.input, self.receipts, self.letters, self.changelog]
        seen = asyncio.run(observer.observe(self.site.bootstrap, topics))
        orders = {order["id"]: order for order in seen.json(self.input)}
        letters = [letter["id"] for letter in seen.json(self.letters)]
        receipts = seen.json(self.receipts)
        came = sorted([*letters, *(receipt["id"] for receipt in receipts)])
        assert came == sorted(orders), "I1, I2: not each order is in one receipt or one letter"
        for letter in letters:
            assert orders[letter]["amount"] > LARGEST, f"order {letter} was refused without reason"
        totals: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        for receipt in receipts:  # a user's are in one partition, in order
            total, order = totals[receipt["user"]], orders[receipt["id"]]
            total[0] += 1
            total[1] += order["amount"]
            assert [receipt["orders"], receipt["amount"]] == total, f"I3, I4: {receipt}"
            if receipt["job"] == 2:
                assert order["amount"] <= LARGEST, f"the second version took {order}"
        table = {
            key.decode(): list(msgspec.msgpack.decode(value).values())[:2]
            for (_, key), value in seen.latest(self.changelog).items()
        }
        assert table == totals, "I4: the table is not what the receipts say"


@catalogue.row(
    19, "the job is upgraded and downgraded, worker by worker: contract, state and output change",
    unit="restarts", ci=4, nightly=24, at_once=8, invariants="I1-I5", place=single,
)  # fmt: skip
def version_changes(site: Site, home: Path, rng: random.Random, dose: int) -> None:
    """Both versions work side by side on the same tables, and neither loses the other's work."""
    with Upgrade(site, home, rng) as trial:
        trial.feed(1_000)
        trial.at_work("one", "two")
        with trial.streaming():
            for number in range(dose):
                name, job = ("one", "two")[number % 2], str(2 - number // 2 % 2)
                assert trial.fleet.stop(name) == 0, trial.fleet.log(name)[-3000:]
                heard = trial.listen(name)
                trial.start(name, job=job)
                wait_until(
                    lambda heard=heard: "new tasks" in heard(),
                    timeout_s=30,
                    what=f"{name} has no tasks",
                )
                trial.gone_on()
        trial.settle()
