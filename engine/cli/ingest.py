"""``headrace ingest``: a file's lines into a topic."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine.cli import options
from engine.cli.command import Command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from engine.config import Config
    from engine.connect.files import BadLine
    from engine.connect.loader import Keyed

SHOWN_BAD = 5
SHOW_MS = 200.0


@click.command(cls=Command)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--topic", required=True, help="Where the records go.")
@click.option("--format", "file_format", type=click.Choice(["jsonl", "csv", "access-log"]),
              help="Default: told by the name or the first line.")  # fmt: skip
@click.option("--key-field", metavar="FIELD", help="The field that becomes the record's key.")
@click.option("--time-field", metavar="FIELD",
              help="The field with the record's time: ms since 1970, or ISO 8601. "
                   "Default: the present.")  # fmt: skip
@click.option("--typed", is_flag=True, help="CSV: send what reads as a number as a number.")
@click.option("--as-events", is_flag=True,
              help="An access log's requests as the demo job's raw events.")  # fmt: skip
@click.option("--partitions", type=click.IntRange(min=1),
              help="Create the topic with so many, if it is missing.")  # fmt: skip
@click.option("--skip-bad", is_flag=True, help="Bad lines are no failure.")
@options.broker
def ingest(file: Path, broker: str | None, **given: Any) -> None:
    """Send a file's lines to a topic, one record a line.

    JSON lines go as they are, CSV rows and requests of an access log as JSON objects; a file named
    *.gz is unpacked on the way. Memory does not grow with the file. Lines that are none of the
    format are left out and reported, and the exit status is then 1, unless --skip-bad is given.

    \b
    Examples:
      headrace ingest orders.jsonl --topic orders --key-field id --time-field created
      headrace ingest prices.csv.gz --topic prices --typed --partitions 12
      headrace ingest access.log --topic raw-events --as-events
    """
    from engine.cli.command import Failure
    from engine.cli.console import stderr
    from engine.cli.running import run_loop

    if given["as_events"] and (given["key_field"] or given["time_field"]):
        raise click.UsageError("--as-events chooses key and time itself")
    config = options.admin_config(broker, partitions=given["partitions"])
    console = stderr()
    job = Ingestion(file, console, given)
    seconds = run_loop(job.run(config))
    rate = job.sent / seconds if seconds else 0.0
    click.echo(f"{job.sent:,} records to {given['topic']} in {seconds:.1f} s "
               f"({rate:,.0f} lines/s), {job.bad:,} bad lines")  # fmt: skip
    if job.bad and not given["skip_bad"]:
        raise Failure(
            f"{job.bad:,} of the lines of {file} could not be sent (--skip-bad allows it)"
        )


class Ingestion:
    """One file on its way into a topic.

    Attributes:
        sent: records that the broker has.
        bad: lines that gave no record.
    """

    def __init__(self, file: Path, console: Console, given: dict[str, Any]) -> None:
        self.sent = 0
        self.bad = 0
        self._file = file
        self._console = console
        self._given = given
        self._position = 0

    async def run(self, config: Config) -> float:
        """Send the file; return the seconds it took."""
        from rich import progress

        from engine.clock import SystemClock
        from engine.connect.loader import Loader

        topic = self._given["topic"]
        partitions = await self._partitions(config, topic)
        clock = SystemClock()
        began = clock.elapsed_ms()
        packed = self._file.name.endswith(".gz")
        with progress.Progress(
            progress.TextColumn("{task.description}"), progress.BarColumn(complete_style="green"),
            progress.DownloadColumn(), progress.TransferSpeedColumn(),
            progress.TimeRemainingColumn(), console=self._console, transient=True,
            disable=not self._console.is_terminal,
        ) as bar:  # fmt: skip
            total = None if packed else self._file.stat().st_size
            shown = bar.add_task(self._file.name, total=total)

            def show() -> None:
                bar.update(shown, completed=self._position)

            async with Loader(config) as loader:
                await loader.load(topic, partitions, self._told(clock, show))
                self.sent = loader.sent
        return (clock.elapsed_ms() - began) / 1000

    def _told(self, clock: Any, show: Any) -> Iterator[Keyed]:
        """Pass the records on, showing how far they are now and then."""
        due = 0.0
        for number, record in enumerate(self._records(clock.now_ms())):
            if number % 1000 == 0 and clock.elapsed_ms() >= due:
                show()
                due = clock.elapsed_ms() + SHOW_MS
            yield record
        show()

    def _records(self, now_ms: int) -> Iterator[Keyed]:
        from engine.connect.files import ReadOptions, read_file, read_lines

        given = self._given
        if given["as_events"]:
            from agents.access_log import access_log_events

            def lines() -> Iterator[bytes]:
                for position, line in read_lines(self._file, self._note_bad):
                    self._position = position
                    yield line

            yield from access_log_events(lines())
            return
        how = ReadOptions(format=given["file_format"], key_field=given["key_field"],
                          time_field=given["time_field"], typed=given["typed"])  # fmt: skip
        for line in read_file(self._file, how, self._note_bad):
            self._position = line.position_bytes
            at = now_ms if line.timestamp_ms is None else line.timestamp_ms
            yield line.key, line.value, at

    def _note_bad(self, line: BadLine) -> None:
        self.bad += 1
        if self.bad <= SHOWN_BAD:
            self._console.print(f"line {line.number}: {line.reason}", markup=False)
        elif self.bad == SHOWN_BAD + 1:
            self._console.print("more bad lines are only counted")

    async def _partitions(self, config: Config, topic: str) -> int:
        from engine.contracts.contract import Contract
        from engine.errors import ConfigError
        from engine.kafka.admin import KafkaAdmin
        from engine.topic import Topic

        admin = KafkaAdmin(config)
        try:
            if self._given["partitions"] is not None:
                await admin.create([Topic(topic, Contract.of(topic, bytes))])
            found = await admin.partitions([topic])
        finally:
            await admin.close()
        if topic not in found:
            raise ConfigError(
                f"there is no topic {topic} at {config.broker}: create it with `headrace topics "
                f"create {topic}`, or give --partitions"
            )
        return found[topic]
