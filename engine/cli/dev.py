"""``headrace dev``: a broker, for as long as one works."""

from __future__ import annotations

import contextlib
import signal
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from engine.cli.command import Command, Failure
from engine.cli.console import promised, stderr

if TYPE_CHECKING:
    from engine.devbroker import DevBroker

WATCH_S = 0.5
LAST_LINES = 5


@click.command(cls=Command)
@click.option("--port", type=click.IntRange(1, 65535), default=9092, show_default=True)
@click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the data here; Kafka takes it up again. Default: a temporary directory.",
)
@click.option(
    "--prefer",
    type=click.Choice(["auto", "kafka", "tansu"]),
    default="auto",
    show_default=True,
    help="Which broker: Kafka (needs Java and Maven) or Tansu (a wheel, no transactions).",
)
def dev(port: int, directory: Path | None, prefer: Literal["auto", "kafka", "tansu"]) -> None:
    """Run a broker for development until Ctrl-C.

    Apache Kafka where there is Java, else Tansu. It listens on 127.0.0.1 only.

    \b
    Examples:
      headrace dev
      headrace dev --port 19092 --dir ./kafka-data
    """
    from engine import config
    from engine.devbroker import start_broker

    console = stderr()
    with contextlib.ExitStack() as stack:
        if directory is None:
            made = tempfile.TemporaryDirectory(prefix="headrace-dev-", ignore_cleanup_errors=True)
            directory = Path(stack.enter_context(made))
        stopped = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: stopped.set())
        with console.status("starting a broker") as status:
            broker = start_broker(
                directory, prefer, progress=status.update, port=port, cache=config.cache_dir()
            )
        with broker:
            _say(broker)
            with contextlib.suppress(KeyboardInterrupt):
                while not stopped.wait(WATCH_S):
                    if not broker.running:
                        raise Failure(f"{broker.name} has ended by itself{_last_words(broker)}")
            console.print("stopping")


def _last_words(broker: DevBroker) -> str:
    """Quote the end of the broker's log: a temporary directory goes with the command."""
    lines = broker.log_path.read_text(errors="replace").splitlines()[-LAST_LINES:]
    return "; its log ends:\n" + "\n".join(lines) if lines else ""


def _say(broker: DevBroker) -> None:
    guarantee = "exactly_once" if broker.transactions else "at_least_once"
    click.echo(f"{broker.name} is at {broker.bootstrap}")
    click.echo(f"guarantee: {promised(guarantee)}")
    click.echo(f"next: headrace worker agents --broker {broker.bootstrap}"
               f"{'' if broker.transactions else ' --guarantee at_least_once'}")  # fmt: skip
    click.echo("Ctrl-C ends it")
