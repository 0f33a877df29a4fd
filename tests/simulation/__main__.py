"""``python -m tests.simulation``: many seeds, or one with its trace, or the mutants."""

import argparse
import logging
import os
import sys
import time

from tests.simulation.campaign import campaign, report
from tests.simulation.mutants import HEADING, hunt_all
from tests.simulation.simulation import Simulation, trace_text

DAILY, NIGHTLY = 1_000, 50_000
HASH_SEED = "0"  # of strings: a set of them is gone through in the order of their hashes


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=DAILY, help=f"how many; {DAILY} if not said")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--nightly", action="store_true", help=f"{NIGHTLY} seeds")
    parser.add_argument("--seed", type=int, help="run this one only, and print its trace")
    parser.add_argument("--log", action="store_true", help="with --seed: the workers' logs, too")
    parser.add_argument("--mutants", action="store_true", help="what catches which mistake")
    parser.add_argument("--jobs", type=int, help="processes; as many as cores if not said")
    options = parser.parse_args()
    if options.mutants:
        return hunting(options.jobs)
    if options.seed is not None:
        return one(options.seed, log=options.log)
    return many(options)


def many(options):
    """Run a campaign; return the exit code."""
    began = time.monotonic()
    count = NIGHTLY if options.nightly else options.seeds
    outcome = campaign(range(options.first, options.first + count), options.jobs)
    print("\n".join(report(outcome)))
    print(f"{time.monotonic() - began:.0f} s")
    return 1 if outcome.failures else 0


def hunting(jobs):
    """Print the table of mutants; return the exit code."""
    print(HEADING)
    missed = 0
    for verdict in hunt_all(jobs=jobs):
        print(verdict, flush=True)
        missed += not verdict.violation
    return 1 if missed else 0


def one(seed, *, log):
    """Run one seed and print all of it; return the exit code."""
    if log:
        logging.basicConfig(level=logging.DEBUG, stream=sys.stdout, format="%(name)s %(message)s")
    else:
        logging.disable(logging.CRITICAL)
    run = Simulation(seed, say=print if log else None)
    try:
        run.run()
    except Exception as error:  # noqa: BLE001  told below, whatever it is
        failure = error
    else:
        failure = None
    if not log:
        print(trace_text(run.cluster.events))
    for what, count in sorted(run.faults.fired.items()):
        print(f"{what:28} {count}")
    print(f"digest {run.digest()}")
    print(f"seed {seed}: {failure or 'everything holds'}")
    return 0 if failure is None else 1


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != HASH_SEED:
        environment = os.environ | {"PYTHONHASHSEED": HASH_SEED}
        os.execve(
            sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]], environment
        )
    sys.exit(main())
