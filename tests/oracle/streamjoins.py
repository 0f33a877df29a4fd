"""Two streams joined within a window, and a stream joined with a table's history after a while."""

from __future__ import annotations

from tests.oracle.declared import new_app, topic

TOPOLOGIES = ("ss_inner", "ss_left", "ss_outer", "asof_inner", "asof_left")


def OUTPUTS(topology, config):  # noqa: N802
    """Name the outputs that are filled."""
    return ["out"]


def app_for(topology, config, **table_options):
    """Declare the app that stands for a topology."""
    app = new_app(topology, config)
    kind, _, how = topology.partition("_")
    params = config["params"]
    if kind == "ss":
        join_streams(app, how, params, table_options)
    else:
        join_as_of(app, how, params, table_options)
    return app


def join_streams(app, how, params, options):
    """Declare two streams, their join, and the agent that reads it."""
    join = app.Join(
        "join",
        topic(app, "left"),
        topic(app, "right"),
        before=params["before_ms"] / 1000,
        after=params["after_ms"] / 1000,
        grace=params["grace_ms"] / 1000,
        how=how,
        release="kafka",
        **options,
    )

    @app.agent(join, sink=[topic(app, "out")])
    async def joined(pairs):
        async for left, right in pairs:
            yield {"l": left, "r": right}


def join_as_of(app, how, params, options):
    """Declare a stream, a versioned table that is a topic, and the agent that joins them."""
    history = params["versioned_history_ms"] / 1000
    source = topic(app, "table", compacting=True)
    table = app.Table("table", source=source, history=history, **options)

    @app.agent(topic(app, "stream"), sink=[topic(app, "out")])
    async def joined(stream):
        async for value, row in stream.join(table, how=how, grace=params["grace_ms"] / 1000):
            yield {"l": value, "r": row}
