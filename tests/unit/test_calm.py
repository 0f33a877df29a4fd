"""aiokafka's log, as far as it goes through."""

import logging
import re
from pathlib import Path

import aiokafka
import pytest

from engine.kafka import quiet


def record(message: str, at: float, *arguments: object) -> logging.LogRecord:
    made = logging.LogRecord("aiokafka", logging.ERROR, __file__, 1, message, arguments, None)
    made.created = at
    return made


def test_a_message_that_repeats_itself_goes_through_once_in_five_seconds() -> None:
    """By its wording, not by its arguments: else each attempt would be new."""
    calm = quiet.Calm()
    assert calm.filter(record("cannot reach node %s", 0.0, 1))
    assert not calm.filter(record("cannot reach node %s", 1.0, 2))
    assert calm.filter(record("something else", 1.0))
    assert calm.filter(record("cannot reach node %s", 5.1, 1))


def test_the_error_that_every_new_group_meets_is_not_told() -> None:
    """It is mended a moment later, and worries whoever reads it."""
    calm = quiet.Calm()
    told = "Group Coordinator Request failed: %s"
    assert not calm.filter(record(told, 0.0, "[Error 15] GroupCoordinatorNotAvailableError"))
    assert calm.filter(record(told, 0.0, "NodeNotReadyError"))


def test_no_logger_of_aiokafka_can_be_turned_to_debug(caplog: pytest.LogCaptureFixture) -> None:
    """Not by the root's level, not by its own: at DEBUG it logs passwords and records."""
    loggers = [logging.getLogger(name) for name in quiet.names()]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.DEBUG)
        with caplog.at_level(logging.DEBUG):
            for logger in loggers:
                logger.debug("Request: %s", "canary")
                logger.info("Request: %s", "canary")
                logger.warning("%s is heard", logger.name)
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
    assert "canary" not in caplog.text
    assert caplog.text.count("is heard") == len(loggers)


def test_every_logger_that_aiokafka_has_is_among_them() -> None:
    """Its modules name them by themselves, or by a name in quotes."""
    for path in Path(aiokafka.__file__).parent.rglob("*.py"):
        module = ".".join(
            path.relative_to(Path(aiokafka.__file__).parents[1]).with_suffix("").parts
        )
        for name in re.findall(r"getLogger\((.*?)\)", path.read_text()):
            used = module.removesuffix(".__init__") if name == "__name__" else name.strip("'\"")
            assert used in quiet.names(), f"{path}: {name}"
