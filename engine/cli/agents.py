"""``headrace agents``: what an app is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from engine.cli import options
from engine.cli.command import Command

if TYPE_CHECKING:
    from engine.app import App

COLUMNS = ("agent", "reads", "writes", "tables", "part", "what it does")


@click.command(cls=Command)
@click.argument("module", default="agents")
@options.as_json
def agents(module: str, *, as_json: bool) -> None:
    """Show an app's agents: what each reads and writes, its tables, and which belong together.

    Agents of the same part share topics or tables, and always run in the same worker. Tables send
    their windows' results to topics too: these count as written by the agents that use them.

    \b
    Examples:
      headrace agents
      headrace agents shop.orders:app --json
    """
    import msgspec

    from engine.cli.console import stdout, table
    from engine.cli.loading import load_app

    rows = describe(load_app(module))
    if as_json:
        click.echo(msgspec.json.encode(rows).decode())
        return
    shown = [
        (row["name"], *("\n".join(row[name]) for name in ("topics", "sinks", "tables")),
         row["part"], row["doc"])
        for row in rows
    ]  # fmt: skip
    stdout().print(table(COLUMNS, shown, right="part"))


def describe(app: App) -> list[dict[str, list[str] | str]]:
    """Return a row for each agent, in the order of declaration."""
    rows: dict[str, dict[str, list[str] | str]] = {}
    for part in app.topology().parts:
        for node in part.nodes:
            agent = node.agent
            if agent.name in rows:
                rows[agent.name]["tables"] = [table.name for table in node.tables]
                continue
            written = [_sink(sink) for sink in agent.sinks]
            written += [topic.name for table in node.tables for topic in table.outputs]
            rows[agent.name] = {
                "name": agent.name,
                "topics": [topic.name for topic in agent.topics],
                "sinks": written,
                "tables": [table.name for table in node.tables],
                "part": part.name,
                "doc": (agent.__doc__ or "").strip().partition("\n")[0],
            }
    return list(rows.values())


def _sink(sink: object) -> str:
    return str(getattr(sink, "name", None) or getattr(sink, "__name__", sink))
