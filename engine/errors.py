"""What can go wrong, by what whoever catches it must do.

::

    HeadraceError
    ├── ConfigError          fix the setting or the topics it names, then start again
    ├── BrokerError          the broker is away or refuses: wait, or tell the user
    │   └── AccessDenied     a permission is missing: wait for it, loudly
    ├── CommitRefused        nothing of the transaction happened: we are a zombie; rejoin
    ├── CommitUnknown        it may have happened: drop what is in memory, ask the broker
    ├── RecordRefused        this record cannot go out (too large): its input is dead-lettered
    ├── InputLost            records went before they were read: stop the task, or go on behind them
    ├── AgentFailed          user code raised: roll the task back, then retry, dead-letter or stop
    ├── TaskStopped          a person must act; the worker's other tasks go on
    └── ContextError         a table or stream was used where there is no task
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from engine.record import TP


class HeadraceError(Exception):
    """Every error that the engine raises on purpose."""


class ConfigError(HeadraceError):
    """A setting, or the cluster's set-up, does not fit; the message names the fix."""


class BrokerError(HeadraceError):
    """The broker cannot be reached, or answers with an error that waiting may mend."""


class CommitRefused(HeadraceError):
    """The group or the transaction coordinator says that this worker is not the owner any more."""


class CommitUnknown(HeadraceError):
    """A transaction's outcome is not known; only the broker can tell, after InitProducerId."""


class RecordRefused(HeadraceError):
    """The broker does not take a record, today or tomorrow.

    Attributes:
        tp: where it was to go; None where that is not known.
        index: its place among what was sent there in this commit; None where that is not known.
        reason: Kafka's name of the error, and the topic.
        key: its key.
        cut: the work that it is part of. Both are filled in by the commit, which knows them.
    """

    def __init__(
        self, message: str, *, tp: TP | None = None, index: int | None = None, reason: str = ""
    ) -> None:
        self.tp = tp
        self.index = index
        self.reason = reason or message
        self.key: bytes | None = None
        self.cut: Any = None
        super().__init__(message)


class AccessDenied(BrokerError):
    """The broker does not let us: wait, say so, go on once the permission is there.

    Attributes:
        topics: which; empty: the group, the transactional id or the cluster.
        tasks: whose work it holds up: filled in by the commit, which knows what it sent.
    """

    def __init__(self, message: str, topics: Iterable[str] = ()) -> None:
        self.topics = frozenset(topics)
        self.tasks: list[Any] = []
        super().__init__(message)


class InputLost(HeadraceError):
    """A position is not in its topic any more; the message names the offsets and the choice.

    Attributes:
        tp: the input.
    """

    def __init__(self, tp: TP, message: str) -> None:
        self.tp = tp
        super().__init__(message)


class AgentFailed(HeadraceError):
    """An agent raised while it had an event in hand, or the broker refused what it made of it."""

    def __init__(self, agent: str, place: str, cause: BaseException) -> None:
        self.agent = agent
        self.place = place
        self.cause = cause
        self.tries = 1
        self.letter = True  # False: another agent's dead letter tells of the same event
        if isinstance(cause, RecordRefused):
            what = f"what agent {agent} made of {place} is refused: {cause.reason}"
        else:
            what = f"agent {agent} raised {type(cause).__name__} on {place}"
        super().__init__(what)


class TaskStopped(HeadraceError):
    """A task stands still until a person acts; the message says what to do.

    Attributes:
        task: its id.
        reason: the error that stopped it.
    """

    def __init__(self, task: str, reason: Exception, remedy: str) -> None:
        self.task = task
        self.reason = reason
        super().__init__(f"task {task} is stopped: {reason}. {remedy}")


class ContextError(HeadraceError):
    """A table or stream was used where there is no task, or for a key that lives elsewhere."""
