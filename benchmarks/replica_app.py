"""The main job under a consumer group of the environment's choice, for ``headrace worker``."""

import os

from agents import app

app.configure(id=os.environ["BENCH_GROUP"])
__all__ = ["app"]
