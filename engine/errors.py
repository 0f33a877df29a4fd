"""What can go wrong, by what whoever catches it must do.

::

    HeadraceError
    ├── ConfigError          fix the setting or the topics it names, then start again
    ├── BrokerError          the broker is away or refuses: wait, or tell the user
    ├── CommitRefused        nothing of the transaction happened: we are a zombie; rejoin
    ├── CommitUnknown        it may have happened: drop what is in memory, ask the broker
    ├── RecordRefused        this record cannot go out (too large): its input is dead-lettered
    ├── AgentFailed          user code raised: roll the task back, then retry, dead-letter or stop
    └── ContextError         a table or stream was used where there is no task
"""

from __future__ import annotations


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
    """The broker does not take a record, today or tomorrow."""


class AgentFailed(HeadraceError):
    """An agent raised while it had an event in hand."""

    def __init__(self, agent: str, place: str, cause: BaseException) -> None:
        self.agent = agent
        self.place = place
        self.cause = cause
        super().__init__(f"agent {agent} raised {type(cause).__name__} on {place}")


class ContextError(HeadraceError):
    """A table was read or written outside of an agent, or for a key that lives elsewhere."""
