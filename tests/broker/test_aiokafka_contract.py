"""What engine/kafka uses of aiokafka that is not public: an upgrade that moves it fails here.

The version is pinned in pyproject.toml; this says what to look at before moving the pin.
"""

import inspect

import aiokafka
import pytest
from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.consumer.consumer import AIOKafkaConsumer
from aiokafka.consumer.fetcher import Fetcher, FetchError, FetchResult, PartitionRecords
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import SubscriptionState, TopicPartitionState
from aiokafka.record.default_records import DefaultRecordBatchBuilder


def test_the_version_is_the_pinned_one() -> None:
    """Private names are only known for this version."""
    assert aiokafka.__version__ == "0.14.0"


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        (Fetcher, ["_create_fetch_waiter", "_notify", "seek_to"]),
        (FetchResult, ["check_assignment", "has_more"]),
        (FetchError, ["check_raise"]),
        (GroupCoordinator, ["ensure_coordinator_known", "coordinator_dead", "check_errors",
                            "fetch_committed_offsets", "_send_req", "request_rejoin"]),
        (SubscriptionState, ["fetch_context", "reassignment_in_progress"]),
        (TopicPartitionState, ["consumed_to", "seek", "pause"]),
        (AIOKafkaClient, ["bootstrap", "send", "ready", "coordinator_lookup", "_wait_on_metadata",
                          "force_metadata_update", "fetch_all_metadata", "add_topic"]),
    ],
)  # fmt: skip
def test_the_methods_are_there(owner: type, names: list[str]) -> None:
    """Each is called by name."""
    for name in names:
        assert hasattr(owner, name), f"{owner.__name__}.{name}"


@pytest.mark.parametrize(
    ("owner", "attributes"),
    [
        (Fetcher, ["_records", "_wait_consume_future"]),
        (FetchResult, ["_partition_records", "_assignment"]),
        (PartitionRecords, ["_records", "_aborted_transactions", "next_fetch_offset"]),
        (GroupCoordinator, ["generation", "member_id", "_group_instance_id", "coordinator_id"]),
        (TopicPartitionState, ["highwater", "lso"]),
        (AIOKafkaConsumer, ["_fetcher", "_coordinator", "_subscription", "_client"]),
    ],
)
def test_the_attributes_are_set_where_we_read_them(owner: type, attributes: list[str]) -> None:
    """Each is assigned somewhere in the class or in the class it stands on."""
    source = "".join(
        inspect.getsource(cls) for cls in owner.__mro__ if cls.__module__.startswith("aiokafka")
    )
    for name in attributes:
        assert f"self.{name}" in source, f"{owner.__name__}.{name}"


def test_a_fetch_result_is_unread_until_we_read_it() -> None:
    """We read the batches behind PartitionRecords: its iterator must not have begun."""
    source = inspect.getsource(PartitionRecords.__init__)
    assert "self._records_iterator = self._unpack_records()" in source
    assert inspect.isgeneratorfunction(PartitionRecords._unpack_records)


def test_the_compiled_batch_builder_takes_what_we_give_it() -> None:
    """Producer id, epoch and sequence go in at once; append returns None when it is full."""
    builder = DefaultRecordBatchBuilder(2, 0, 1, 7, 3, 5, 200)
    assert builder.append(0, 1, b"k", b"v" * 50, []) is not None
    assert builder.append(1, 1, b"k", b"v" * 500, []) is None
    assert len(builder.build()) > 60
    assert type(builder).__module__.startswith("aiokafka.record._crecords"), "not the compiled one"


def test_the_connection_kinds_are_there() -> None:
    """Coordinators have connections of their own."""
    assert ConnectionGroup.COORDINATION is not ConnectionGroup.DEFAULT
    assert CoordinationType.TRANSACTION != CoordinationType.GROUP
