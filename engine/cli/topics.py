"""``headrace topics``: list and create topics."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import click

from engine.cli import options
from engine.cli.command import Command, Group

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.app import App
    from engine.config import Config
    from engine.topic import Topic


@click.group(cls=Group)
def topics() -> None:
    """List and create topics.

    \b
    Examples:
      headrace topics list --broker localhost:9092
      headrace topics create orders --partitions 12
    """


@topics.command("list", cls=Command)
@options.broker
@options.as_json
def list_topics(broker: str | None, *, as_json: bool) -> None:
    """List the cluster's topics.

    The number of records is that of offsets in use: transaction markers count, and in compacted
    topics so do records that have been replaced.

    \b
    Examples:
      headrace topics list
      headrace topics list --json
    """
    import msgspec

    from engine.cli.console import stdout, table

    rows = asyncio.run(_list(options.admin_config(broker)))
    if as_json:
        names = ("name", "partitions", "replicas", "records")
        found = [dict(zip(names, row, strict=True)) for row in rows]
        click.echo(msgspec.json.encode(found).decode())
    elif rows:
        columns = ("topic", "partitions", "replicas", "records")
        stdout().print(table(columns, rows, right="partitions replicas records"))
    else:
        click.echo("there are no topics yet: `headrace topics create NAME`")


async def _list(config: Config) -> list[tuple[str, int, int, int]]:
    from engine.kafka.admin import KafkaAdmin
    from engine.kafka.log import KafkaLog
    from engine.record import TP

    admin, log = KafkaAdmin(config), KafkaLog(config)
    try:
        found = await admin.describe()
        tps = [TP(info.name, number) for info in found for number in range(info.partitions)]
        held: dict[str, int] = {}
        for tp, (first, end) in (await log.bounds(tps)).items():
            held[tp.topic] = held.get(tp.topic, 0) + end - first
        return [(*info, held.get(info.name, 0)) for info in found]
    finally:
        await log.close()
        await admin.close()


@topics.command("create", cls=Command)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--module", help="Create the topics of this app; alone, `agents` is meant.")
@click.option("--partitions", type=click.IntRange(min=1), help="Default: 12.")
@click.option(
    "--replicas", type=click.IntRange(min=1), help="Default: 3, or as many as there are brokers."
)
@click.option(
    "--retention", type=options.Duration(), help="How long records are kept. Default: 7d."
)
@click.option(
    "--segment", type=options.Duration(), help="How long a file is added to. Default: 1d."
)
@click.option(
    "--min-insync", type=click.IntRange(min=1), help="Replicas that must have a write. Default: 2."
)
@click.option("--compact", is_flag=True, help="Keep the last record of each key instead.")
@options.broker
def create(names: Sequence[str], module: str | None, broker: str | None, *, compact: bool,
           **given: int | None) -> None:  # fmt: skip
    """Create topics: those named, or all that an app reads and writes.

    A topic that is there already is left as it is.

    \b
    Examples:
      headrace topics create orders payments --partitions 12 --retention 7d
      headrace topics create profiles --compact
      headrace topics create --module agents
    """
    settings = _settings(given)
    if names and module:
        raise click.UsageError("give names or --module, not both")
    if names:
        config = options.admin_config(broker, **settings)
        wanted = [_plain(name, compact=compact) for name in names]
    else:
        from engine.cli.loading import load_app

        app = load_app(module or "agents")
        app.configure(broker=broker, **settings)
        config, wanted = app.settings(), topics_of(app)
    for name, created, partitions in asyncio.run(_create(config, wanted)):
        if created:
            click.echo(f"created {name} ({partitions} partitions)")
        else:
            click.echo(f"{name} was there already ({partitions} partitions)")


def _settings(given: dict[str, int | None]) -> dict[str, Any]:
    """Return the engine's settings for the options; fewer replicas need fewer in sync."""
    replicas, insync = given["replicas"], given["min_insync"]
    if replicas == 1 and insync is None:
        insync = 1
    return {
        "partitions": given["partitions"],
        "replicas": replicas,
        "retention_ms": given["retention"],
        "segment_ms": given["segment"],
        "min_insync": insync,
    }


def _plain(name: str, *, compact: bool) -> Topic:
    from engine.contracts.contract import Contract
    from engine.topic import Topic, TopicConfig

    return Topic(name, Contract.of(name, bytes), TopicConfig(compacted=compact))


def topics_of(app: App) -> list[Topic]:
    """Return what an app reads and writes, without what the engine makes for itself."""
    topology = app.topology()
    return [topic for topic in topology.topics.values() if not topic.internal]


async def _create(config: Config, wanted: Sequence[Topic]) -> list[tuple[str, bool, int]]:
    from engine.kafka.admin import KafkaAdmin

    admin = KafkaAdmin(config)
    try:
        created = await admin.create(wanted)
        partitions = await admin.partitions([topic.name for topic in wanted])
        return [(t.name, t.name in created, partitions.get(t.name, 0)) for t in wanted]
    finally:
        await admin.close()
