"""The app: its name, and the two switches of the main job."""

from typing import Literal

import msgspec

from engine import App, read_options


class Options(msgspec.Struct):
    """How the main job treats what is not clear-cut: ``HEADRACE_SESSIONS=updates`` and so on.

    Attributes:
        keep_unmatched: emit events of users without a profile, with empty profile fields.
        sessions: ``final`` (once, when a session has closed) or ``updates`` (at each change).
        prefix: before the names of the app and of every topic: several of this job on one cluster.
    """

    keep_unmatched: bool = False
    sessions: Literal["final", "updates"] = "final"
    prefix: str = ""


options = read_options(Options)
app = App(f"{options.prefix}clickstream")
