"""Two tables joined by their keys, or by a foreign key."""

from __future__ import annotations

from tests.oracle.declared import new_app, topic

TOPOLOGIES = ("tt_inner", "tt_left", "tt_outer", "fk_inner", "fk_left")


def OUTPUTS(topology, config):  # noqa: N802
    """Name the outputs that are filled."""
    return ["out"]


def app_for(topology, config, **options):
    """Declare the app that stands for a topology."""
    app = new_app(topology, config)
    left, right = (topic(app, name, compacting=True) for name in ("left", "right"))
    kind, _, options["how"] = topology.partition("_")
    if kind == "fk":
        joined = app.ForeignKeyJoin("joined", left, right, on=lambda value: value["fk"], **options)
    else:
        history_ms = config["params"]["versioned_history_ms"]
        options["history"] = None if history_ms is None else history_ms / 1000
        joined = app.TableJoin("joined", left, right, **options)

    @app.agent(joined, sink=[topic(app, "out")])
    async def tell(rows):
        async for row in rows:
            yield None if row is None else {"l": row[0], "r": row[1]}

    return app
