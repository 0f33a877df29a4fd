"""Try the failure catalogue on real Kafka, and report what it came to.

Each row is a fault, struck so many times while the main job runs; afterwards outputs, dead letters
and tables are held against a recomputation of the input. Needs Java 17 and Maven.
"""

import argparse
import random
import shutil
import subprocess
import sys
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path

from engine.devbroker import kafka_available
from tests.faults.catalogue import Row
from tests.faults.report import Failure, Report, Tally
from tests.faults.rows import ROWS
from tests.faults.sites import Sites

LINES_MAX = 20
EXAMPLES = """\
examples:
  python -m tests.faults --list                 what there is, with the doses
  python -m tests.faults --rows 3,20            two rows in the doses of the continuous build
  python -m tests.faults --nightly              all rows in full, about three hours
  python -m tests.faults --nightly --rows 1 --minutes 30
  python -m tests.faults --nightly --rows 08-end-txn-cuts --seed 7 --trial 3    one trial again
"""


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--nightly", action="store_true", help="the full doses")
    parser.add_argument("--rows", help="some only: numbers or names, comma-separated")
    parser.add_argument("--minutes", type=float, help="begin no trial after so long")
    parser.add_argument("--seed", type=int, help="of all chance; today's date by default")
    parser.add_argument("--trial", type=int, help="this one of each row alone")
    parser.add_argument(
        "--out", type=Path, default=Path("faults-report"),
        help="report.md, report.json, and the files of trials that failed (faults-report)",
    )  # fmt: skip
    parser.add_argument("--list", action="store_true", help="show the catalogue and end")
    given = parser.parse_args()
    given.chosen = [row for row in ROWS if is_chosen(row, given.rows)]
    if not given.chosen:
        parser.error(f"no such rows: {given.rows}")
    if given.seed is None:
        given.seed = int(datetime.now(UTC).strftime("%Y%m%d"))
    return given


def is_chosen(row: Row, rows: str | None) -> bool:
    """Say whether a row is among those asked for."""
    return rows is None or any(
        word in {str(row.number), f"{row.number:02d}", row.name} for word in rows.split(",")
    )


def show() -> None:
    """Print the catalogue."""
    for row in ROWS:
        print(f"{row.name}: {row.fault}")
        print(f"    {row.ci or 'no'} {row.unit} in the continuous build, {row.nightly} a night;")
        print(f"    {' '.join(row.expects.split())} [{row.invariants}]")


def doses(row: Row, *, nightly: bool) -> list[int]:
    """Return the dose of each trial of a row."""
    total = row.nightly if nightly else row.ci
    return [min(row.at_once, total - done) for done in range(0, total, row.at_once)]


class Night:
    """One run: trial after trial, a fresh cluster after each that failed."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.began = time.monotonic()
        given.out.mkdir(parents=True, exist_ok=True)
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
        ).stdout.strip()
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self.report = Report(given.seed, commit or "unknown", now, nightly=given.nightly)
        self._homes = 0

    def new_home(self) -> Path:
        """Return an empty directory."""
        self._homes += 1
        home: Path = self.given.out / "work" / str(self._homes)
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        return home.resolve()

    def run(self) -> None:
        """Try everything that was chosen."""
        with Sites(self.new_home) as sites:
            for row in self.given.chosen:
                planned = doses(row, nightly=self.given.nightly)
                tally = Tally.of(row, sum(planned))
                self.report.tallies.append(tally)
                for trial, dose in enumerate(planned):
                    if self.given.trial in {None, trial} and not self.is_over():
                        self.trial(sites, row, tally, trial, dose)
                        self.report.write(self.given.out)
        shutil.rmtree(self.given.out / "work", ignore_errors=True)

    def is_over(self) -> bool:
        """Say whether the time is up."""
        limit = self.given.minutes
        return limit is not None and time.monotonic() - self.began > 60 * limit

    def trial(self, sites: Sites, row: Row, tally: Tally, trial: int, dose: int) -> None:
        """Run one trial, and keep its files if it fails."""
        began, home = time.monotonic(), self.new_home()
        rng = random.Random(f"{self.given.seed} {row.name} {trial}")
        outcome = "ok"
        try:
            row.run(sites.get(row.place), home, rng, dose)
        except Exception as error:  # noqa: BLE001  it is what the report is for
            kept = self.given.out / f"{row.name}-{trial}"
            shutil.rmtree(kept, ignore_errors=True)
            sites.close()
            shutil.copytree(home, kept)
            (kept / "error.txt").write_text(traceback.format_exc())
            frame = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(frame.filename).name}:{frame.lineno}: {frame.line}"
            lines = f"{type(error).__name__}: {error}".splitlines()[:LINES_MAX]
            tally.failures.append(Failure(trial, dose, "\n".join([where, *lines]), str(kept)))
            outcome = f"FAILED: {lines[0]}"
        tally.done += dose
        tally.trials += 1
        seconds = time.monotonic() - began
        tally.seconds += seconds
        print(f"{row.name}, trial {trial}: {dose} {row.unit}, {seconds:.0f} s: {outcome}",
              file=sys.stderr, flush=True)  # fmt: skip


def main() -> int:
    """Run it; 1 if anything failed."""
    given = arguments()
    if given.list:
        show()
        return 0
    reason = kafka_available()
    if reason is not None:
        print(f"this needs Kafka: {reason}", file=sys.stderr)
        return 2
    night = Night(given)
    try:
        night.run()
    except KeyboardInterrupt:
        print("ended early: the report tells of what was done", file=sys.stderr)
    night.report.write(given.out)
    print(night.report.as_markdown())
    return 1 if night.report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
