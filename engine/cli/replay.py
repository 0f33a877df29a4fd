"""``headrace replay``: run an app over recorded records, in memory, and record what comes out."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import click

from engine.cli.command import Command

PORTION = 1_000
"""So many records go in before what came out is written; it changes nothing else."""


@click.command(cls=Command)
@click.argument("module")
@click.option("--input", "source", required=True, metavar="IN.jsonl",
              type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="The records, in the order in which they are to be worked on.")  # fmt: skip
@click.option("--output", "target", required=True, metavar="OUT.jsonl",
              type=click.Path(dir_okay=False, path_type=Path),
              help="Where the results go, dead letters too.")  # fmt: skip
@click.option("--keep-open", is_flag=True, help="Leave open what the records leave open.")
def replay(module: str, source: Path, target: Path, *, keep_open: bool) -> None:
    """Run an app over recorded records, without a broker, and record its results.

    The records are worked on one after the other, each with all that follows from it; at the end
    every window is closed. The same records give the same results.

    \b
    One JSON object a line: topic, key, value, timestamp (ms), and headers if there are any. A value
    that is a string goes in as its bytes, so that what is no JSON can be recorded too (unless the
    topic takes any JSON: then it is a string). Results of windows also have window: {start, end};
    bytes that are no text are {"base64": ...}.

    \b
    Examples:
      headrace replay agents --input in.jsonl --output out.jsonl
      headrace replay shop.orders:app --input in.jsonl --output out.jsonl --keep-open
    """
    from engine.cli.console import stderr
    from engine.cli.loading import load_app
    from engine.cli.recorder import Recorder
    from engine.testing import Driver

    app = load_app(module)
    console = stderr()
    with (
        source.open("rb") as lines,
        target.open("wb") as results,
        Driver(app, window_headers=True) as driver,
        console.status("replaying") as status,
    ):
        recorder = Recorder(driver, results)
        records = recorder.records(lines, source)
        while recorder.put(islice(records, PORTION)):
            status.update(f"replaying: {recorder.taken:,} records")
        if not keep_open:
            driver.close_windows()
            recorder.write_new()
    for name, count in recorder.foreign.items():
        click.echo(
            f"{count:,} records of {name} left out: {app.conf.id} does not read it", err=True
        )
    click.echo(
        f"{recorder.taken:,} records in, {recorder.written:,} out, of which "
        f"{recorder.dead_letters:,} dead letters: {target}",
        err=True,
    )
