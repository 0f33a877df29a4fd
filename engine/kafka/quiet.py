"""aiokafka's log: how much of it goes through."""

from __future__ import annotations

import logging
import pkgutil

import aiokafka

QUIET_S = 5.0

log = logging.getLogger("aiokafka")
"""For what aiokafka's client would have said."""


class Calm(logging.Filter):
    """Lets warnings of aiokafka's through, each wording once in five seconds.

    At DEBUG it logs whole requests: passwords, tokens, the keys and values of records. Levels are
    the user's to set, so what is below a warning is stopped here too, where no level reaches.

    While a broker is away it repeats itself a hundred times a second, and for a group that is new
    it reports an error that it then mends.
    """

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a message is to be logged."""
        if record.levelno < logging.WARNING:
            return False
        if "GroupCoordinatorNotAvailableError" in record.getMessage():
            return False
        wording = str(record.msg)
        last = self._said.get(wording)
        if last is not None and record.created - last < QUIET_S:
            return False
        self._said[wording] = record.created
        return True


def names() -> list[str]:
    """Return the names of all loggers that aiokafka has: each module may have one."""
    inside = pkgutil.walk_packages(aiokafka.__path__, "aiokafka.")
    return ["aiokafka", *(module.name for module in inside)]


def silence() -> None:
    """Put a filter and a level on each."""
    for name in names():
        logger = logging.getLogger(name)
        logger.setLevel(logging.WARNING)
        if not any(isinstance(each, Calm) for each in logger.filters):
            logger.addFilter(Calm())
