"""``headrace demo``: the whole job at work, from a broker to checked results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine.cli import options
from engine.cli.command import Command, Failure

if TYPE_CHECKING:
    from engine.cli.plan import Result


@click.command(cls=Command)
@click.option("--events", type=click.IntRange(min=1), default=100_000, show_default=True,
              help="How many events to generate.")  # fmt: skip
@click.option("--users", type=click.IntRange(min=1), default=10_000, show_default=True,
              help="How many visitors they come from.")  # fmt: skip
@click.option("--seed", type=int, default=1, show_default=True,
              help="The same seed generates the same events.")  # fmt: skip
@click.option("--input", "file", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Take the events from this file instead: an access log, or raw events as JSON "
                   "lines. Each visitor gets a made-up profile.")  # fmt: skip
@click.option("--replicas", type=click.IntRange(min=1), default=1, show_default=True,
              help="Worker processes; 1: work in this one.")  # fmt: skip
@click.option("--partitions", type=click.IntRange(min=1), default=4, show_default=True)
@click.option("--broker", metavar="HOST:PORT",
              help="Use this Kafka instead of starting one.")  # fmt: skip
@click.option("--fresh", is_flag=True,
              help="With --broker: delete the job's topics there first.")  # fmt: skip
@click.option("--guarantee", type=click.Choice(["exactly_once", "at_least_once"]),
              help="With --broker: at_least_once for one without transactions.")  # fmt: skip
@options.state_dir
@click.option("--keep-unmatched", is_flag=True,
              help="Emit events without a profile too; they count as enriched.")  # fmt: skip
@click.option("--sessions", type=click.Choice(["final", "updates"]), default="final",
              show_default=True, help="A session once, or at each change.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True,
              help="End with one line of JSON on stdout.")  # fmt: skip
def demo(*, as_json: bool, **given: Any) -> None:
    """Run the whole job on generated events, and check the result.

    Starts a broker of its own (Apache Kafka where there is Java, with which the job is exactly
    once; else Tansu, at least once), sends events into it and works on them at the same time:
    contract checks, dead letters, a join with profiles, sessions, counts, conversions. At the
    end the results are counted by reading the output topics, committed records only.

    Each event is enriched, a dead letter, or unmatched (its visitor has no profile), never two of
    them: events = enriched + dead_letters + unmatched. With --keep-unmatched, unmatched is 0. The
    seconds are those from the first event sent to the last one's results committed.

    \b
    Examples:
      headrace demo
      headrace demo --events 1000000 --replicas 2
      headrace demo --input access.log --json
    """
    import msgspec

    from engine import config
    from engine.cli.console import stderr, stdout

    if given["broker"] is None and (given["fresh"] or given["guarantee"]):
        raise click.UsageError("--fresh and --guarantee go with --broker")
    # before the job is imported: it reads its options then
    config.export(keep_unmatched=given["keep_unmatched"], sessions=given["sessions"])
    from engine.cli.plan import Plan
    from engine.cli.showcase import run

    result = run(Plan(**given), stderr())
    console = stderr() if as_json else stdout()
    console.print(result.summary())
    console.print(_checked(result), soft_wrap=True)
    if as_json:
        click.echo(msgspec.json.encode(result).decode())


def _checked(result: Result) -> str:
    """Say that the results add up.

    Raises:
        Failure: they do not.
    """
    parts = (result.enriched, result.unmatched, result.dead_letters)
    out = sum(parts)
    added = f"{' + '.join(f'{part:,}' for part in parts)} = {out:,}"
    if out == result.events:
        return f"{added}: the results account for every event"
    if out < result.events or result.guarantee == "exactly_once":
        raise Failure(f"{result.events:,} events went in, but the results are {added}")
    return f"{added}: {out - result.events:,} came twice, as at-least-once allows"
