"""What a poll takes from aiokafka's fetcher, piece by piece."""

from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import FetchError, FetchResult, PartitionRecords
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.errors import OffsetOutOfRangeError
from aiokafka.record.memory_records import MemoryRecords

from engine.config import make
from engine.errors import InputLost
from engine.kafka.assignor import Group, assignor_for
from engine.kafka.consumer import KafkaSource
from engine.kafka.records import encode_batches
from engine.record import TP

GOOD, GONE = TopicPartition("in", 0), TopicPartition("in", 1)


def source_with(records):
    """Return a source whose fetcher has these answers, by partition."""
    source = KafkaSource(
        make({"id": "drained"}, {}), assignor_for([Group(("in",), stateful=False)]), "one"
    )
    fetcher = SimpleNamespace(_records=records, _wait_consume_future=None, _notify=lambda _: None)
    subscription = SimpleNamespace(reassignment_in_progress=False)
    source._consumer = SimpleNamespace(_fetcher=fetcher, _subscription=subscription)
    return source


async def test_a_position_that_is_gone_does_not_take_other_records_with_it():
    """They are handed out first; the error is the next poll's."""
    subscription = SubscriptionState()
    subscription.assign_from_user([GOOD, GONE])
    assignment = subscription.subscription.assignment
    assignment.state_value(GOOD).seek(0)
    (batch,) = encode_batches([(b"k", b"v", 1, ())], 0)
    part = PartitionRecords(GOOD, MemoryRecords(batch.data), [], 0, None, None, False, 1)  # noqa: FBT003
    good = FetchResult(GOOD, assignment=assignment, partition_records=part, backoff=0)
    gone = FetchError(error=OffsetOutOfRangeError({GONE: 7}), backoff=0)
    source = source_with({GOOD: good, GONE: gone})
    [came] = source._drain([])
    assert (came.tp, came.unpack(10)[0].values) == (TP("in", 0), [b"v"])
    with pytest.raises(InputLost, match=r"in\[1\]"):
        source._drain([])
    assert source._drain([]) == []
