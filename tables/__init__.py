"""State beside the agents: stores, overlays, windows, sessions. No Kafka, no event loop.

Everything here is synchronous and deterministic: time comes in with the records, bytes go out with
the commit. ``engine`` decides *when*; this package knows *what*.
"""
