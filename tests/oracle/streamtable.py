"""A stream joined with a table that is a topic."""

from __future__ import annotations

from tests.oracle.declared import new_app, topic

TOPOLOGIES = ("stream_table_inner", "stream_table_left")


def OUTPUTS(topology, config):  # noqa: N802
    """Name the outputs that are filled."""
    return ["out"]


def app_for(topology, config, **table_options):
    """Declare the app that stands for a topology."""
    if config["params"]["versioned_history_ms"] is not None:
        raise NotImplementedError("tables are not versioned")
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
