"""aiokafka's log, as far as it goes through."""

import logging

from engine.kafka import client


def record(message: str, at: float, *arguments: object) -> logging.LogRecord:
    made = logging.LogRecord("aiokafka", logging.ERROR, __file__, 1, message, arguments, None)
    made.created = at
    return made


def test_a_message_that_repeats_itself_goes_through_once_in_five_seconds() -> None:
    """By its wording, not by its arguments: else each attempt would be new."""
    calm = client.Calm()
    assert calm.filter(record("cannot reach node %s", 0.0, 1))
    assert not calm.filter(record("cannot reach node %s", 1.0, 2))
    assert calm.filter(record("something else", 1.0))
    assert calm.filter(record("cannot reach node %s", 5.1, 1))


def test_the_error_that_every_new_group_meets_is_not_told() -> None:
    """It is mended a moment later, and worries whoever reads it."""
    calm = client.Calm()
    told = "Group Coordinator Request failed: %s"
    assert not calm.filter(record(told, 0.0, "[Error 15] GroupCoordinatorNotAvailableError"))
    assert calm.filter(record(told, 0.0, "NodeNotReadyError"))


def test_no_logger_of_aiokafka_can_be_turned_to_debug_by_the_roots_level() -> None:
    """At DEBUG it logs whole requests, and with them passwords."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.DEBUG)
    try:
        for name in ("aiokafka.conn", "aiokafka.producer.producer", "aiokafka.consumer.fetcher"):
            assert not logging.getLogger(name).isEnabledFor(logging.INFO)
    finally:
        root.setLevel(before)
