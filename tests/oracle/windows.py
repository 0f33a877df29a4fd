"""Windows: session, tumbling, hopping, sliding."""

from __future__ import annotations

from tests.oracle.declared import new_app, topic

TOPOLOGIES = ("session", "tumbling", "hopping", "sliding")


def OUTPUTS(topology, config):  # noqa: N802
    """Name the outputs that are filled."""
    return ["updates", "final"]


def app_for(topology, config, **table_options):
    """Declare the app that stands for a topology."""
    if topology == "sliding" and config["late_beyond_grace"]:
        raise NotImplementedError("the peer undercounts here, and we do not (tables/sliding.py)")
    app = new_app(topology, config)
    declare_windows(app, topology, config["params"], table_options)
    return app


def nothing():
    """Make an empty aggregate."""
    return {"count": 0, "sum": 0}


def add(total, event):
    """Count an event; a null value counts too, and adds nothing."""
    x = 0 if event is None else event["x"]
    return {"count": total["count"] + 1, "sum": total["sum"] + x}


def merge(one, other):
    """Put two aggregates together."""
    return {name: one[name] + other[name] for name in one}


def declare_windows(app, topology, params, options):
    """Declare one table for each kind of emission, and the agent that fills them."""
    source = topic(app, "in")

    def table(emit):
        sink = topic(app, emit)
        grace = params["grace_ms"] / 1000
        if topology == "session":
            return app.SessionTable(
                f"{emit}-table", gap=params["gap_ms"] / 1000, grace=grace, key_type=str,
                initial=nothing, reduce=add, merge=merge, sink=sink, emit=emit, **options,
            )  # fmt: skip
        size = params["size_ms"] / 1000
        keyed = app.Table(f"{emit}-table", default=nothing, key_type=str, **options)
        if topology == "sliding":
            return keyed.sliding(size, grace=grace, reduce=add, sink=sink, emit=emit)
        step = params["advance_ms"] / 1000 if "advance_ms" in params else size
        return keyed.hopping(size, step, grace=grace, reduce=add, sink=sink, emit=emit)

    updates, final = table("updates"), table("final")

    @app.agent(source)
    async def aggregate(stream):
        async for key, value in stream.items():
            updates.update(key, value)
            final.update(key, value)
