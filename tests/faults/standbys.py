"""Row 25: workers with warm copies fail while the copies are not up to date."""

import random
import time
from pathlib import Path

from tests.broker.fleet import wait_until
from tests.faults.catalogue import catalogue
from tests.faults.cluster import Site, single
from tests.faults.processes import ALL
from tests.faults.trial import SESSION_S, Trial


@catalogue.row(
    25, "the active worker is killed while its standby catches up, or after it has lagged",
    unit="kills", ci=4, nightly=30, at_once=10, invariants=ALL, place=single,
)  # fmt: skip
def lagging_standbys(site: Site, home: Path, rng: random.Random, dose: int) -> None:
    """The standby restores what it lacks before it works, and serves nothing older."""
    names = ["one", "two"]
    with Trial(site, home, rng, standby_replicas="1") as trial:
        trial.feed(4_000)
        trial.at_work("one")
        for number in range(dose):
            active, standby = names[number % 2], names[1 - number % 2]
            with trial.streaming():
                heard = trial.listen(standby)
                trial.start(standby)
                wait_until(
                    lambda heard=heard: "new standbys" in heard(),
                    timeout_s=30,
                    what="no standby",
                )
                if number % 4 < 2:  # in its first catch-up
                    time.sleep(rng.uniform(0, 0.5))
                    trial.fleet.kill(active)
                else:  # after a while in which it could not follow
                    trial.gone_on(by=1_000)
                    trial.freeze(standby)
                    time.sleep(SESSION_S * 0.6)
                    trial.fleet.kill(active)
                    trial.thaw(standby)
                trial.gone_on()
        trial.settle()
