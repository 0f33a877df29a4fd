"""A job that hoards: each record is large, is kept under a key of its own, and goes out again."""

from engine import App

app = App("hoard", partitions=4, replicas=1, min_insync=1, retention_ms=-1)
IN = app.topic("hoard-in", key_type=str, value_type=str, partitions=4, retention=-0.001)
OUT = app.topic("hoard-out", key_type=str, value_type=str, partitions=4, retention=-0.001)
kept = app.Table("hoard", key_type=str, value_type=str, partitions=4)


@app.agent(IN, sink=[OUT])
async def hoard(stream):
    async for key, text in stream.items():
        kept[key] = text
        yield text
