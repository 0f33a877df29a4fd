"""``headrace torture``: kill the job's workers again and again, and check everything."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine.cli import options
from engine.cli.command import Command, Failure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from engine.devbroker import DevBroker
    from engine.torture.campaign import Outcome, Plan

FAULTS = ("kill", "stop", "term", "broker")


class _Faults(click.ParamType):
    """Kinds of faults, with commas between them."""

    name = "kinds"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Return them."""
        kinds = tuple(value.split(",")) if isinstance(value, str) else value
        for kind in kinds:
            if kind not in FAULTS:
                self.fail(f"{kind!r} is none of {', '.join(FAULTS)}", param, ctx)
        return kinds


@click.command(cls=Command)
@click.option("--kills", type=click.IntRange(min=1), default=30, show_default=True,
              help="How many times a worker gets SIGKILL (without kill in --faults: how many "
                   "faults).")  # fmt: skip
@click.option("--replicas", type=click.IntRange(min=1), default=3, show_default=True,
              help="Worker processes.")  # fmt: skip
@click.option("--rate", type=click.IntRange(min=1), default=1_000, show_default=True,
              help="Events a second, for as long as the campaign lasts.")  # fmt: skip
@click.option("--seed", type=int, help="The same seed, the same faults. Default: a random one.")
@click.option("--faults", type=_Faults(), default="kill", show_default=True,
              help="What happens to workers: kill; stop (SIGSTOP for longer than the session "
                   "timeout: a zombie); term (a replica leaves and comes back); broker (it is "
                   "started again; not with --broker).")  # fmt: skip
@click.option("--crash-points", is_flag=True,
              help="Instead of random kills: let a worker die at each named place of a commit, a "
                   "restore, a rebalance, the start and the end.")  # fmt: skip
@click.option("--partitions", type=click.IntRange(min=1), default=6, show_default=True)
@click.option("--session-timeout", type=options.Duration(), default="6s", show_default=True,
              help="After it the group gives a dead worker's partitions to others. Faults are half "
                   "of it to twice of it apart. Kafka's own minimum is 6s.")  # fmt: skip
@click.option("--broker", metavar="HOST:PORT",
              help="Use this Kafka instead of starting one; topics of the campaign's own are made "
                   "there, and deleted if all is well.")  # fmt: skip
@click.option("--home", type=click.Path(file_okay=False, path_type=Path),
              help="Where logs, stores and the broker's data go, and stay. Default: a temporary "
                   "directory, which stays if anything is wrong.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True,
              help="End with one line of JSON on stdout.")  # fmt: skip
def torture(*, seed: int | None, as_json: bool, **given: Any) -> None:
    """Kill workers of the job again and again, then check everything they left.

    The main job runs in worker processes on Kafka, events come in at a steady rate, and random
    workers get SIGKILL at random moments: one, sometimes two at once; some come back at once, some
    after the group has given their partitions away, some on an empty disk. Then the input is worked
    off, the workers are stopped, and every record of every topic and every row of every store is
    held against a recomputation by code that shares nothing with the engine.

    lost: inputs with neither output nor dead letter. duplicated: outputs, dead letters and results
    of windows that came twice. table differences: rows of tables, of stores and of what windows
    emitted that are not the recomputation's. Checked too: the order by key, that committed offsets
    never go back and reach the end, that no transaction is left open, that no two workers commit
    for one partition in a generation of the group, and that memory and open files are bounded.

    recovery: for each kill and each partition that the killed worker owned, from the kill to when
    the broker took the first higher offset from its heir (another worker, or the same one started
    again), by the broker's clock in the group's log. It contains the time until somebody notices.

    The exit status is 0 only if all holds.

    \b
    Examples:
      headrace torture
      headrace torture --kills 300 --replicas 4 --seed 7
      headrace torture --faults kill,stop,term --broker kafka1:9092 --json
      headrace torture --crash-points
    """
    import secrets

    from engine.cli.console import stderr, stdout
    from engine.torture.campaign import Plan

    if given["broker"] and "broker" in given["faults"]:
        raise click.UsageError("a broker that you give is not started again: leave broker out")
    session_s = given.pop("session_timeout") / 1000
    broker, home, named = given.pop("broker"), given.pop("home"), given.pop("crash_points")
    seed = secrets.randbelow(1_000_000) if seed is None else seed
    plan = Plan(
        seed=seed, session_timeout_s=session_s, gap_s=(session_s / 2, session_s * 2), **given
    )
    with _home(home) as place:
        outcome = _run(plan, broker, place, stderr(), named=named)
        _report(plan, outcome, stderr() if as_json else stdout())
        if as_json:
            click.echo(_as_json(plan, outcome))
        if outcome.verdict.findings:
            broken = ", ".join(outcome.verdict.broken)
            raise Failure(f"broken: {broken}; logs, stores and the broker's data are in {place}")


@contextlib.contextmanager
def _home(given: Path | None) -> Iterator[Path]:
    """Have a directory; one of our own goes away if nothing is wrong."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given.resolve()
        return
    made = Path(tempfile.mkdtemp(prefix="headrace-torture-"))
    try:
        yield made
    except Failure:  # it says where everything is
        raise
    except BaseException:
        if any(made.glob("*.log")):
            click.echo(f"the workers' logs and stores are in {made}", err=True)
        else:
            shutil.rmtree(made, ignore_errors=True)
        raise
    shutil.rmtree(made, ignore_errors=True)


def _run(plan: Plan, address: str | None, home: Path, console: Console, *, named: bool) -> Outcome:
    from engine import config as configuration
    from engine.cli.running import run_loop
    from engine.clock import SystemClock
    from engine.devbroker import start_broker

    with contextlib.ExitStack() as stack:
        broker: DevBroker | None = None
        if address is None:
            configuration.connect_plainly()
            with console.status("starting Kafka") as status:
                cache = configuration.cache_dir()
                broker = start_broker(home / "broker", "kafka", progress=status.update, cache=cache)
            stack.enter_context(broker)
            address = broker.bootstrap
        elif (protocol := options.admin_config(address).security.security_protocol) != "PLAINTEXT":
            raise Failure(f"the campaign's checker speaks no {protocol}: give it a listener of its "
                          "own without TLS and SASL")  # fmt: skip
        settings: dict[str, str | int | bool] = {
            "prefix": f"torture-{SystemClock().now_ms():x}-",
            "keep_unmatched": True,
            "broker": address,
            "partitions": plan.partitions,
            "retention_ms": -1,
            "session_timeout_ms": round(plan.session_timeout_s * 1000),
        }
        configuration.export(**settings)  # before the job is imported: it reads its prefix then
        from engine.cli.ordeal import Ordeal

        ordeal = Ordeal(plan, home, broker, settings, console)
        return run_loop(ordeal.crash_everywhere() if named else ordeal.run())


def _report(plan: Plan, outcome: Outcome, console: Console) -> None:
    from engine.cli.console import table
    from engine.torture.history import percentile

    verdict = outcome.verdict
    seconds = [recovery.seconds for recovery in outcome.recoveries]
    rows: list[tuple[str, object, str]] = [
        ("kills", outcome.kills, f"of {plan.replicas} workers, {outcome.faults} faults in all"),
        ("events", verdict.events, f"{plan.rate:,} a second"),
        ("lost", verdict.lost, "neither output nor dead letter"),
        ("duplicated", verdict.duplicated, "came out more often than they should"),
        ("table differences", verdict.table_differences, "rows of tables, stores and results"),
        ("recovery p50", _seconds(percentile(seconds, 0.5)), f"of {len(seconds)} partitions"),
        ("recovery p99", _seconds(percentile(seconds, 0.99)), "from the kill to its heir's commit"),
        ("slowest", *_slowest(outcome)),
        ("seed", str(plan.seed), "repeats the faults"),
    ]
    console.print(table(("result", "figure", ""), rows, right="figure"))
    console.print(str(verdict), soft_wrap=True, markup=False)
    console.print(f"again: {_command(plan)}", soft_wrap=True, markup=False)


def _slowest(outcome: Outcome) -> tuple[str, str]:
    """Return the longest recovery, and where to look for it in the logs."""
    if not outcome.recoveries:
        return "-", ""
    longest = max(outcome.recoveries, key=lambda recovery: recovery.seconds)
    at = datetime.fromtimestamp(longest.kill.when_ms / 1000, UTC).strftime("%H:%M:%S UTC")
    partition = f"{longest.place[0]}[{longest.place[1]}]"
    return _seconds(longest.seconds), f"{partition}, killed at {at} (faults.log)"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"


def _command(plan: Plan) -> str:
    """Return the command line that repeats a campaign."""
    return (
        f"headrace torture --kills {plan.kills} --replicas {plan.replicas} --rate {plan.rate} "
        f"--partitions {plan.partitions} --faults {','.join(plan.faults)} "
        f"--session-timeout {round(plan.session_timeout_s * 1000)}ms --seed {plan.seed}"
    )


def _as_json(plan: Plan, outcome: Outcome) -> str:
    import msgspec

    from engine.torture.history import percentile

    seconds = [recovery.seconds for recovery in outcome.recoveries]
    verdict = outcome.verdict
    return msgspec.json.encode(
        {
            "kills": outcome.kills,
            "events": verdict.events,
            "lost": verdict.lost,
            "duplicated": verdict.duplicated,
            "table_differences": verdict.table_differences,
            "recovery_p50_s": percentile(seconds, 0.5),
            "recovery_p99_s": percentile(seconds, 0.99),
            "seed": plan.seed,
        }
    ).decode()
