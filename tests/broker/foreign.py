"""The job of test_tablejoins: a foreign-key join of texts. Its id is the environment's."""

import os

from engine import App

name = os.environ["HEADRACE_ID"]
app = App(name)
left, right, out = (
    app.topic(f"{name}-{which}", value_type=str, key_type=str, compacting=True)
    for which in ("left", "right", "out")
)
pairs = app.ForeignKeyJoin("pairs", left, right, on=lambda text: text)


@app.agent(pairs, sink=[app.topic(f"{name}-out", value_type=None, key_type=str, compacting=True)])
async def tell(rows):
    """Write the join down."""
    async for row in rows:
        yield row
