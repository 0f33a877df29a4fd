"""Recorded cases of Kafka Streams, run through the real engine.

``run(topology, config, input_records)`` builds a small app, pipes the input in one record at a
time and returns what came out, each row with the index of the input line that caused it. What the
engine does not have yet raises NotImplementedError, which a checker counts as skipped.
"""

from __future__ import annotations

from engine import App, Contract
from engine.testing import Driver

WINDOWED = ("session", "tumbling", "hopping")
JOINED = ("stream_table_inner", "stream_table_left")


def OUTPUTS(topology, config):  # noqa: N802  (the checker's name)
    """Name the outputs that are filled."""
    return ["out"] if topology in JOINED else ["updates", "final"]


def run(topology, config, input_records):
    """Return the rows that the engine emits for one case."""
    return list(run_app(app_for(topology, config), OUTPUTS(topology, config), input_records))


def run_app(app, outputs, input_records, **settings):
    """Pipe the input in, line by line; yield output rows."""
    with Driver(app, window_headers=True, **settings) as driver:
        for cause, record in enumerate(input_records):
            driver.pipe(
                record["topic"],
                key=record["key"],
                value=record["value"],
                timestamp=record["ts"],
            )
            for output in outputs:
                yield from (row(cause, each) for each in driver.read(output))


def row(cause, delivered):
    """Make the checker's row of a record that came out."""
    made = {
        "cause": cause,
        "topic": delivered.topic,
        "key": delivered.key,
        "value": delivered.value,
        "ts": delivered.timestamp,
    }
    window = delivered.header("headrace.window")
    if window is not None:
        start, end = map(int, window.split(","))
        made["window"] = {"start": start, "end": end}
    return made


def app_for(topology, config, **table_options):
    """Declare the app that stands for a topology."""
    app = App(f"oracle-{topology}-{config['case']}".replace("_", "-"))
    params = config["params"]
    if topology in JOINED:
        if params["versioned_history_ms"] is not None:
            raise NotImplementedError("tables are not versioned")
        declare_join(app, topology.rpartition("_")[2])
    elif topology in WINDOWED:
        declare_windows(app, topology, params, table_options)
    else:
        raise NotImplementedError(topology)
    return app


def topic(app, name, **options):
    """Declare a topic of any JSON, keyed by text, that may hold nulls."""
    return app.topic(
        name, contract=Contract.of(name, None, key_type=str, null_values=True), **options
    )


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
        size = params["size_ms"]
        return app.Table(f"{emit}-table", default=nothing, key_type=str, **options).hopping(
            size / 1000, params.get("advance_ms", size) / 1000, grace=grace,
            reduce=add, sink=sink, emit=emit,
        )  # fmt: skip

    updates, final = table("updates"), table("final")

    @app.agent(source)
    async def aggregate(stream):
        async for key, value in stream.items():
            updates.update(key, value)
            final.update(key, value)


def declare_join(app, how):
    """Declare a stream, a table that is a topic, and the agent that joins them."""
    stream_topic, out = topic(app, "stream"), topic(app, "out")
    table = app.Table("table", source=topic(app, "table", compacting=True))

    @app.agent(stream_topic, sink=[out])
    async def joined(stream):
        async for value, found in stream.join(table, how=how):
            yield {"l": value, "r": found}
