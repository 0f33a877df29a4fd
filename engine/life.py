"""The life of a task: its states, and the ways between them.

::

               start()              fail()
    CREATED ────────────► RUNNING ─────────► FAILED
       │                   │    ▲               │
       │            hold() │    │ release()     │
       │                   ▼    │               │
       │                 HOLDING ───────┐       │
       │                                ▼       ▼
       └──────────────────────────────► CLOSED ◄┘     close(), from anywhere

RUNNING takes pieces from the inbox and gives them to the agents, when the loop says so; HOLDING
finishes the events in hand and takes no more (a rebalance, a cut); FAILED waits for the worker,
which drops the task and makes a new one from the committed state. There is no way back from FAILED
or CLOSED: what a task holds in memory is worth nothing once it is in doubt.
"""

from __future__ import annotations

from enum import Enum


class State(Enum):
    """Where a task is in its life; see the drawing above."""

    CREATED = "created"
    RUNNING = "running"
    HOLDING = "holding"
    FAILED = "failed"
    CLOSED = "closed"


MOVES: dict[State, frozenset[State]] = {
    State.CREATED: frozenset({State.RUNNING, State.CLOSED}),
    State.RUNNING: frozenset({State.HOLDING, State.FAILED, State.CLOSED}),
    State.HOLDING: frozenset({State.RUNNING, State.FAILED, State.CLOSED}),
    State.FAILED: frozenset({State.CLOSED}),
    State.CLOSED: frozenset(),
}
