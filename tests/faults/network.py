"""Row 8: one worker's network fails, in every way that TCP allows."""

import random
import time
from pathlib import Path

from tests.broker.fleet import wait_until
from tests.faults.catalogue import catalogue
from tests.faults.cluster import Site, single
from tests.faults.processes import ALL
from tests.faults.proxy import END_TXN
from tests.faults.trial import SESSION_S, Trial

PRODUCE, HEARTBEAT, JOIN_GROUP, ADD_PARTITIONS, TXN_OFFSET_COMMIT = 0, 12, 11, 24, 28


def begin(trial: Trial) -> None:
    """Have two workers at work."""
    trial.feed(1_000)
    trial.at_work("one", "two")


@catalogue.row(
    8, "a black hole: one worker's packets are held back for 2.5 session timeouts and then arrive",
    unit="black holes", ci=2, nightly=20, at_once=5, invariants=ALL, place=single,
)  # fmt: skip
def black_holes(site: Site, home: Path, rng: random.Random, dose: int) -> None:
    """The other worker takes over; what the first one had on its way is refused when it comes."""
    with Trial(site, home, rng) as trial:
        begin(trial)
        with trial.streaming():
            for _ in range(dose):
                door = site.doors[rng.choice(["one", "two"])]
                door.black_hole()
                time.sleep(SESSION_S * 2.5)
                trial.gone_on()
                door.heal()
                trial.gone_on()
                time.sleep(rng.uniform(0.5, 2))
        trial.settle()


@catalogue.row(
    8, "RST to all of one worker's connections, every half second",
    unit="resets", ci=6, nightly=60, at_once=20, invariants=ALL, place=single,
)  # fmt: skip
def resets(site: Site, home: Path, rng: random.Random, dose: int) -> None:
    """The worker connects again each time."""
    with Trial(site, home, rng) as trial:
        begin(trial)
        with trial.streaming():
            door, hit = site.doors["one"], 0
            for _ in range(dose):
                hit += door.reset()
                time.sleep(0.5 * rng.uniform(0.6, 1.4))
            trial.gone_on()
        assert hit >= dose, "there was nothing to reset"
        trial.settle()


@catalogue.row(
    8, "a slow and uneven network: 200 ms, 100 more or less, each way, and 2 MB/s",
    unit="runs", ci=1, nightly=5, at_once=1, invariants=ALL, place=single,
)  # fmt: skip
def latency(site: Site, home: Path, rng: random.Random, dose: int) -> None:
    """Commits take longer than the session's heartbeats are apart, and go through."""
    with Trial(site, home, rng) as trial:
        begin(trial)
        for _ in range(dose):
            with trial.streaming(per_s=400):
                for name in ("one", "two"):
                    door = site.doors[name]
                    door.delay_s, door.jitter_s, door.bytes_per_s = 0.2, 0.1, 2e6
                time.sleep(6)
                trial.gone_on()
            for name in ("one", "two"):
                site.doors[name].heal()
        trial.settle()


@catalogue.row(
    8, "half-open connections: the broker's side is gone and the worker is not told",
    unit="connections' ends", ci=1, nightly=20, at_once=4, invariants=ALL, place=single,
)  # fmt: skip
def half_open(site: Site, home: Path, rng: random.Random, dose: int) -> None:
    """The other worker takes over at once; this one comes back when its requests time out."""
    with Trial(site, home, rng) as trial:
        begin(trial)
        with trial.streaming():
            for _ in range(dose):
                assert site.doors["one"].half_open()
                time.sleep(SESSION_S)
                trial.gone_on(timeout_s=20)
        trial.settle()


@catalogue.row(
    8, "EndTxn is cut off: before the broker has it, before its answer, or it comes late",
    unit="cuts of EndTxn", ci=6, nightly=42, at_once=12, invariants=ALL, place=single,
)  # fmt: skip
def end_txn_cuts(site: Site, home: Path, rng: random.Random, dose: int) -> None:
    """The outcome is unknown to the worker; the broker is asked, and nothing is done twice."""
    with Trial(site, home, rng) as trial:
        begin(trial)
        with trial.streaming():
            door = site.doors["one"]
            for number in range(dose):
                before = door.hits.total()
                cut = ("request", "answer", "late")[number % 3]
                if cut == "request":
                    door.lose_request(END_TXN)
                elif cut == "answer":
                    door.lose_answer(END_TXN)
                else:
                    door.delay_request(END_TXN, rng.uniform(0.2, 2))
                wait_until(
                    lambda before=before: door.hits.total() > before,
                    timeout_s=30,
                    what=f"no EndTxn to cut off ({cut})",
                )
                trial.gone_on()
        trial.settle()
        assert "no answer to a part of the transaction" in trial.fleet.log("one")


@catalogue.row(
    8, "any other request of a commit or of the group is cut off, or a frame in its middle",
    unit="cuts", ci=6, nightly=60, at_once=20, invariants=ALL, place=single,
)  # fmt: skip
def other_cuts(site: Site, home: Path, rng: random.Random, dose: int) -> None:
    """As with EndTxn."""
    with Trial(site, home, rng) as trial:
        begin(trial)
        with trial.streaming():
            door = site.doors["one"]
            kinds = [PRODUCE, HEARTBEAT, ADD_PARTITIONS, TXN_OFFSET_COMMIT]
            for number in range(dose):
                before = door.hits.total()
                if number % 3 == 2:
                    door.cut_after(rng.randrange(20_000))
                else:
                    lose = door.lose_request if number % 3 else door.lose_answer
                    lose(rng.choice(kinds))
                wait_until(
                    lambda before=before: door.hits.total() > before,
                    timeout_s=30,
                    what="nothing to cut off",
                )
                trial.gone_on()
        trial.settle()
