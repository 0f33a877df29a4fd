"""Rows 1, 3, 4, 5, 9 and 20: workers are killed, stopped, stalled, started and replaced."""

import asyncio
import random
import time
from collections import Counter
from pathlib import Path

from engine.torture import observer
from engine.torture.checker import Job
from tests.broker.fleet import wait_until
from tests.faults.catalogue import catalogue
from tests.faults.cluster import Site, single
from tests.faults.trial import SESSION_S, Trial

ALL = "I1-I7"
STOP_S = 10.0


@catalogue.row(
    1, "SIGKILL of 1 to 3 of 4 workers, started again with their state or without",
    unit="kills", ci=20, nightly=300, at_once=60, invariants=ALL, place=single,
)  # fmt: skip
def kills(site: Site, home: Path, rng: random.Random, dose: int) -> None:
    """The others, and those that are started again, go on; nothing is lost or doubled."""
    names = ["one", "two", "three", "four"]
    with Trial(site, home, rng) as trial:
        trial.feed(1_000)
        trial.at_work(*names)
        lives: Counter[str] = Counter()
        with trial.streaming():
            killed = 0
            while killed < dose:
                for name in rng.sample(names, min(rng.randint(1, 3), dose - killed)):
                    running = next(each for each in trial.fleet.workers if each.startswith(name))
                    trial.fleet.kill(running)
                    lives[name] += rng.random() < 0.3  # else it comes back to its own state
                    trial.fleet.start(
                        f"{name}-{lives[name]}" if lives[name] else name,
                        trial.module,
                        broker=site.address(name),
                    )
                    killed += 1
                    time.sleep(rng.uniform(0, 0.3))
                time.sleep(rng.uniform(0.5, 2.5))
            trial.gone_on()
        trial.settle()


@catalogue.row(
    3, "zombies: SIGSTOP for 1.2 to 3 session timeouts, then SIGCONT",
    unit="zombies", ci=4, nightly=60, at_once=12, invariants=ALL, place=single,
)  # fmt: skip
def zombies(site: Site, home: Path, rng: random.Random, dose: int) -> None:
    """What a zombie had in hand is refused; it joins again and works on."""
    names = ["one", "two", "three"]
    with Trial(site, home, rng) as trial:
        trial.feed(1_000)
        trial.at_work(*names)
        with trial.streaming():
            for number in range(0, dose, 2):
                pair = rng.sample(names, min(2, dose - number))
                for name in pair:
                    trial.freeze(name)
                for name in pair:
                    time.sleep(SESSION_S * rng.uniform(1.2, 1.8))
                    trial.thaw(name)
                trial.gone_on()
        trial.settle()
        said = trial.logs()
        assert "not the owner any more" in said or "out of date" in said, "no zombie was noticed"


@catalogue.row(
    4, "the event loop stands still for 1.5 session timeouts (time.sleep in an agent)",
    unit="stalls", ci=4, nightly=60, at_once=12, invariants=ALL, place=single,
)  # fmt: skip
def stalls(site: Site, home: Path, rng: random.Random, dose: int) -> None:
    """As with zombies, but the worker's own sockets and timers lie still with it."""
    names = ["one", "two", "three"]
    with Trial(site, home, rng) as trial:
        trial.feed(1_000)
        trial.at_work(*names)
        with trial.streaming():
            for number in range(0, dose, 2):
                pair = rng.sample(names, min(2, dose - number))
                for name in pair:
                    trial.order(name, f"stall {1.5 * SESSION_S}")
                wait_until(
                    lambda pair=pair: all(map(trial.obeyed, pair)), timeout_s=60, what="no stall"
                )
                time.sleep(1.5 * SESSION_S)
                trial.gone_on()
        trial.settle()


@catalogue.row(
    5, "a rebalance storm: workers join and leave, 2 to 4 of them",
    unit="rebalances", ci=10, nightly=200, at_once=40, invariants=ALL, place=single,
)  # fmt: skip
def storm(site: Site, home: Path, rng: random.Random, dose: int) -> None:
    """At least a fifth of what comes in is done while the storm lasts, and nobody is stuck."""
    with Trial(site, home, rng) as trial:
        trial.feed(1_000)
        trial.at_work("one", "two")
        wait_until(trial.caught_up, timeout_s=60, what="input is left")
        with trial.streaming():
            before_fed, before_done = trial.fed, trial.done()
            for _ in range(dose):
                guests = [name for name in ("three", "four") if name in trial.fleet.workers]
                if len(guests) == 2 or (guests and rng.random() < 0.5):
                    assert trial.fleet.stop(rng.choice(guests)) == 0
                else:
                    name = next(name for name in ("three", "four") if name not in guests)
                    heard = trial.listen(name)
                    trial.start(name)
                    wait_until(
                        lambda heard=heard: "is at work" in heard(),
                        timeout_s=30,
                        what=f"{name} does not come up",
                    )
                trial.gone_on(by=50, timeout_s=30)
            fed, done = trial.fed - before_fed, trial.done() - before_done
        assert done >= 0.2 * fed, f"{done} of {fed} were done during the storm"
        wait_until(
            lambda: trial.have_tasks(*trial.fleet.workers), timeout_s=30, what="one has no tasks"
        )
        trial.settle()


@catalogue.row(
    9, "an agent awaits longer than the transaction timeout",
    unit="waits", ci=3, nightly=20, at_once=6, invariants=ALL, place=single,
)  # fmt: skip
def long_waits(site: Site, home: Path, rng: random.Random, dose: int) -> None:
    """The other tasks go on meanwhile; the one that waited commits afterwards, once."""
    with Trial(site, home, rng, transaction_timeout_ms="3000") as trial:
        trial.feed(1_000)
        trial.at_work("one", "two")
        with trial.streaming():
            for _ in range(dose):
                name = rng.choice(["one", "two"])
                trial.order(name, "doze 4.5")
                wait_until(lambda name=name: trial.obeyed(name), timeout_s=60, what="no wait")
                trial.gone_on()
                time.sleep(4.5)
        trial.settle()


@catalogue.row(
    20, "a rolling upgrade: SIGTERM to each worker in turn",
    unit="stops", ci=2, nightly=12, at_once=12, invariants=ALL, place=single,
)  # fmt: skip
def rolling_upgrade(site: Site, home: Path, rng: random.Random, dose: int) -> None:
    """Each stops within 10 s; even a reader of uncommitted records sees everything once."""
    names = ["one", "two", "three"]
    with Trial(site, home, rng) as trial:
        trial.feed(1_000)
        trial.at_work(*names)
        with trial.streaming():
            for number in range(dose):
                name = names[number % len(names)]
                began = time.monotonic()
                assert trial.fleet.stop(name) == 0, trial.fleet.log(name)[-3000:]
                took_s = time.monotonic() - began
                assert took_s < STOP_S, f"the stop took {took_s:.1f} s"
                trial.start(name)
                trial.gone_on()
        trial.settle()
        wasted = asyncio.run(_aborted(site.bootstrap, trial.job))
        assert not wasted, f"records were sent in vain: {wasted}"


async def _aborted(bootstrap: str, job: Job) -> dict[str, int]:
    """Return how many records only readers of uncommitted ones see, by topic."""
    committed = await observer.observe(bootstrap, job.written)
    every = await observer.observe(bootstrap, job.written, "read_uncommitted")
    counts = {
        topic: len(every.topics[topic]) - len(committed.topics[topic]) for topic in job.written
    }
    return {topic: count for topic, count in counts.items() if count}
