"""Rows 6 and 7: brokers go away and come back, one alone and one of three."""

import os
import random
import signal
import time
from pathlib import Path

from tests.broker.fleet import wait_until
from tests.faults.catalogue import catalogue
from tests.faults.cluster import Site, single, trio
from tests.faults.processes import ALL
from tests.faults.trial import Trial

RESUME_S = 30.0


@catalogue.row(
    6, "the only broker is stopped (under load) or killed (between transactions), and comes back",
    unit="restarts", ci=2, nightly=20, at_once=4, invariants=ALL, place=single,
)  # fmt: skip
def broker_restarts(site: Site, home: Path, rng: random.Random, dose: int) -> None:
    """Work goes on within 30 s of the broker's return.

    Killed between transactions only: Kafka 4.3.1, alone on its cluster, leaves a transaction open
    for ever that it was killed in the middle of (see ARCHITECTURE.md, *Non-obvious*).
    """
    with Trial(site, home, rng) as trial:
        trial.feed(1_000)
        trial.at_work("one", "two")
        for number in range(dose):
            if number % 2:
                trial.feed(500)
                wait_until(trial.caught_up, timeout_s=60, what="input is left")
                site.broker.kill()
                time.sleep(rng.uniform(0, 5))
                site.broker.restart()
                trial.feed(500)
                trial.gone_on(timeout_s=RESUME_S)
            else:
                with trial.streaming():
                    time.sleep(1)
                    site.broker.stop(timeout_s=30)
                    time.sleep(rng.uniform(0, 5))
                    site.broker.restart()
                    trial.gone_on(timeout_s=RESUME_S)
        trial.settle()


@catalogue.row(
    7, "three brokers: one is stopped, killed or frozen for a while, each in turn, under load",
    unit="bounces", ci=0, nightly=30, at_once=6, invariants=ALL, place=trio,
)  # fmt: skip
def broker_bounces(site: Site, home: Path, rng: random.Random, dose: int) -> None:
    """Leaders and coordinators move; nothing hangs for longer than 60 s."""
    with Trial(site, home, rng) as trial:
        trial.feed(1_000)
        trial.at_work("one", "two")
        with trial.streaming(per_s=300):
            for number in range(dose):
                broker = site.brokers[number % len(site.brokers)]
                match rng.choice(["stop", "kill", "freeze"]):
                    case "stop":
                        broker.stop(timeout_s=30)
                        broker.restart()
                    case "kill":
                        broker.kill()
                        time.sleep(rng.uniform(0, 5))
                        broker.restart()
                    case _:
                        os.kill(broker.pid, signal.SIGSTOP)
                        time.sleep(rng.uniform(3, 8))
                        os.kill(broker.pid, signal.SIGCONT)
                trial.gone_on()
        trial.settle()
