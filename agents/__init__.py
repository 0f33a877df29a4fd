"""What this worker does: one file an agent. The only folder a user edits.

Importing it declares everything; ``AGENTS`` is the list of what runs.
"""

from agents.app import app
from agents.conversions import convert
from agents.counts import count_events
from agents.enrich import enrich
from agents.sessions import sessionize

AGENTS = (enrich, sessionize, count_events, convert)

__all__ = ["AGENTS", "app"]
