"""The command ``headrace``: each subcommand is a module of this package.

Importing this package imports click and nothing else; a subcommand imports what it needs when it
runs, since Faust alone takes longer than a reader of ``--help`` should wait.
"""

from __future__ import annotations

import click

from engine import __version__
from engine.cli.command import Commands

COMMANDS = {
    "agents": "Show an app's agents, and what each reads and writes.",
    "demo": "Run the whole job on generated events, and check the result.",
    "dev": "Run a broker for development until Ctrl-C.",
    "ingest": "Send a file's lines to a topic.",
    "replay": "Run an app over recorded records, without a broker.",
    "topology": "Show how records go through an app.",
    "topics": "List and create topics.",
    "torture": "Kill the job's workers again and again, and check everything.",
    "worker": "Run an app's agents.",
}


@click.group(cls=Commands, commands_of=COMMANDS, context_settings={"max_content_width": 100})
@click.version_option(__version__, "--version", message="headrace %(version)s")
def cli() -> None:
    """Stream processing on Kafka, exactly once, in plain asyncio.

    Start with `headrace demo`: it brings its own broker and input.

    \b
    Examples:
      headrace demo
      headrace worker agents --broker localhost:9092
    """


def main() -> None:
    """Run the command line."""
    cli(prog_name="headrace")
