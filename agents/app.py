"""The app: its name, and the two switches of the main job."""

import msgspec

from engine import App


class Options(msgspec.Struct):
    """How the main job treats what is not clear-cut.

    Attributes:
        keep_unmatched: emit events of users without a profile, with empty profile fields.
        sessions: ``final`` (once, when a session has closed) or ``updates`` (at each change).
    """

    keep_unmatched: bool = False
    sessions: str = "final"


app = App("clickstream")
options = Options()
