"""Flink's tumbling windows: SQL TUMBLE with a watermark that lags by some seconds."""

from __future__ import annotations

from tests.oracle.declared import new_app, topic

TOPOLOGIES = ("flink_tumble",)


def OUTPUTS(topology, config):  # noqa: N802
    """Name the outputs that are filled."""
    return ["out"]


def add(total, event):
    """Do as COUNT(*) and SUM(x) do: a null is counted, and no part of the sum."""
    count, sum_ = total
    x = event["x"]
    return [count + 1, sum_ if x is None else (sum_ or 0) + x]


def app_for(topology, config, **table_options):
    """Declare the app. A null key is a group of its own in SQL, so the table's keys are tuples."""
    app = new_app(topology, config)
    params = config["params"]
    source, out = topic(app, "in"), app.topic("out")
    counts = app.Table("counts", default=lambda: [0, None], **table_options).tumbling(
        params["size_ms"] / 1000, delay=params["watermark_delay_ms"] / 1000, reduce=add, sink=out,
        into=lambda key, window, value: {"key": key[0], "last": window.end - 1, "value": value},
    )  # fmt: skip

    @app.agent(source)
    async def aggregate(stream):
        async for key, value in stream.items():
            counts.update((key,), value)

    return app


def made(row):
    """Bring a result into the peer's form: it stamps windows with the last time in them."""
    result = row.pop("value")
    count, total = result["value"]
    return row | {
        "key": result["key"],
        "ts": result["last"],
        "value": {"count": count, "sum": total},
    }
