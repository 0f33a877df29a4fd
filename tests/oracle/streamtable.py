"""A stream joined with a table that is a topic, versioned or not."""

from __future__ import annotations

from tests.oracle.declared import new_app, topic

TOPOLOGIES = ("stream_table_inner", "stream_table_left")


def OUTPUTS(topology, config):  # noqa: N802
    """Name the outputs that are filled."""
    return ["out"]


def app_for(topology, config, **table_options):
    """Declare the app that stands for a topology."""
    history_ms = config["params"]["versioned_history_ms"]
    if history_ms is not None:
        table_options["history"] = history_ms / 1000
    app = new_app(topology, config)
    declare_join(app, topology.rpartition("_")[2], table_options)
    return app


def declare_join(app, how, options):
    """Declare a stream, a table that is a topic, and the agent that joins them."""
    stream_topic, out = topic(app, "stream"), topic(app, "out")
    table = app.Table("table", source=topic(app, "table", compacting=True), **options)

    @app.agent(stream_topic, sink=[out])
    async def joined(stream):
        async for value, found in stream.join(table, how=how):
            yield {"l": value, "r": found}
