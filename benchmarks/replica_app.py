"""The main job's measured agents under a consumer group of the environment's choice."""

import os

from agents import app, count_events, enrich, sessionize

app.declared_agents[:] = [enrich, sessionize, count_events]
app.configure(id=os.environ["BENCH_GROUP"])
__all__ = ["app"]
