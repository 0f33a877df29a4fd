"""Requests that aiokafka lacks, from Kafka's protocol guide: those of KIP-447 and KIP-345.

* TxnOffsetCommit v3 carries the group's generation and member id, so that the group coordinator can
  refuse the offsets of a worker that is not the owner any more.
* Heartbeat v3 carries the instance id, so that the older of two workers of one name is told.
* OffsetFetch v7 asks for stable offsets: a transaction that is still open makes it say "wait".
"""

from __future__ import annotations

from collections.abc import Iterable

from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Int64,
    Schema,
    String,
    TaggedFields,
)

_TEXT = CompactString("utf-8")
_PLAIN = String("utf-8")


class TxnOffsetCommitResponse_v3(Response):  # noqa: N801  (Kafka's name and version)
    """Error codes by partition."""

    API_KEY = 28
    API_VERSION = 3
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("topics", CompactArray(
            ("name", _TEXT),
            ("partitions", CompactArray(
                ("partition", Int32), ("error_code", Int16), ("tags", TaggedFields),
            )),
            ("tags", TaggedFields),
        )),
        ("tags", TaggedFields),
    )  # fmt: skip


class TxnOffsetCommitRequest_v3(RequestStruct):  # noqa: N801
    """Offsets to commit with the transaction."""

    FLEXIBLE_VERSION = True
    API_KEY = 28
    API_VERSION = 3
    RESPONSE_TYPE = TxnOffsetCommitResponse_v3
    SCHEMA = Schema(
        ("transactional_id", _TEXT),
        ("group_id", _TEXT),
        ("producer_id", Int64),
        ("producer_epoch", Int16),
        ("generation_id", Int32),
        ("member_id", _TEXT),
        ("group_instance_id", _TEXT),
        ("topics", CompactArray(
            ("name", _TEXT),
            ("partitions", CompactArray(
                ("partition", Int32), ("offset", Int64), ("leader_epoch", Int32),
                ("metadata", _TEXT), ("tags", TaggedFields),
            )),
            ("tags", TaggedFields),
        )),
        ("tags", TaggedFields),
    )  # fmt: skip


class TxnOffsetCommit(Request[TxnOffsetCommitRequest_v3]):
    """Builds the request; its fields in the order of the schema, tags left out."""

    API_KEY = 28

    def __init__(self, *fields: object) -> None:
        self._fields = fields

    def build(self, request_struct_class: type[TxnOffsetCommitRequest_v3]) -> RequestStruct:
        """Return the struct."""
        return request_struct_class(*self._fields, {})


class OffsetFetchResponse_v7(Response):  # noqa: N801
    """Committed offsets with their metadata."""

    API_KEY = 9
    API_VERSION = 7
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("topics", CompactArray(
            ("name", _TEXT),
            ("partitions", CompactArray(
                ("partition", Int32), ("offset", Int64), ("leader_epoch", Int32),
                ("metadata", _TEXT), ("error_code", Int16), ("tags", TaggedFields),
            )),
            ("tags", TaggedFields),
        )),
        ("error_code", Int16),
        ("tags", TaggedFields),
    )  # fmt: skip


class OffsetFetchRequest_v7(RequestStruct):  # noqa: N801
    """Asks for committed offsets; ``require_stable`` waits for open transactions."""

    FLEXIBLE_VERSION = True
    API_KEY = 9
    API_VERSION = 7
    RESPONSE_TYPE = OffsetFetchResponse_v7
    SCHEMA = Schema(
        ("group_id", _TEXT),
        ("topics", CompactArray(
            ("name", _TEXT), ("partitions", CompactArray(Int32)), ("tags", TaggedFields),
        )),
        ("require_stable", Boolean),
        ("tags", TaggedFields),
    )  # fmt: skip


class OffsetFetch(Request[OffsetFetchRequest_v7]):
    """Builds the request; its fields in the order of the schema, tags left out."""

    API_KEY = 9

    def __init__(self, *fields: object) -> None:
        self._fields = fields

    def build(self, request_struct_class: type[OffsetFetchRequest_v7]) -> RequestStruct:
        """Return the struct."""
        return request_struct_class(*self._fields, {})


class HeartbeatResponse_v3(Response):  # noqa: N801
    """An error code."""

    API_KEY = 12
    API_VERSION = 3
    SCHEMA = Schema(("throttle_time_ms", Int32), ("error_code", Int16))


class HeartbeatRequest_v3(RequestStruct):  # noqa: N801
    """Says that a member lives, with its instance id."""

    API_KEY = 12
    API_VERSION = 3
    RESPONSE_TYPE = HeartbeatResponse_v3
    SCHEMA = Schema(
        ("group_id", _PLAIN), ("generation_id", Int32), ("member_id", _PLAIN),
        ("group_instance_id", _PLAIN),
    )  # fmt: skip


class Heartbeat(Request[HeartbeatRequest_v3]):
    """Builds the request; its fields in the order of the schema."""

    API_KEY = 12

    def __init__(self, *fields: object) -> None:
        self._fields = fields

    def build(self, request_struct_class: type[HeartbeatRequest_v3]) -> RequestStruct:
        """Return the struct."""
        return request_struct_class(*self._fields)


class MetadataResponse_v10(Response):  # noqa: N801
    """Topics with their ids."""

    API_KEY = 3
    API_VERSION = 10
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("brokers", CompactArray(
            ("node_id", Int32), ("host", _TEXT), ("port", Int32), ("rack", _TEXT),
            ("tags", TaggedFields),
        )),
        ("cluster_id", _TEXT),
        ("controller_id", Int32),
        ("topics", CompactArray(
            ("error_code", Int16), ("name", _TEXT), ("id_high", Int64), ("id_low", Int64),
            ("is_internal", Boolean),
            ("partitions", CompactArray(
                ("error_code", Int16), ("partition", Int32), ("leader", Int32),
                ("leader_epoch", Int32), ("replicas", CompactArray(Int32)),
                ("isr", CompactArray(Int32)), ("offline", CompactArray(Int32)),
                ("tags", TaggedFields),
            )),
            ("operations", Int32), ("tags", TaggedFields),
        )),
        ("operations", Int32),
        ("tags", TaggedFields),
    )  # fmt: skip


class MetadataRequest_v10(RequestStruct):  # noqa: N801
    """Asks for topics by name."""

    FLEXIBLE_VERSION = True
    API_KEY = 3
    API_VERSION = 10
    RESPONSE_TYPE = MetadataResponse_v10
    SCHEMA = Schema(
        ("topics", CompactArray(
            ("id_high", Int64), ("id_low", Int64), ("name", _TEXT), ("tags", TaggedFields),
        )),
        ("create", Boolean),
        ("cluster_operations", Boolean),
        ("topic_operations", Boolean),
        ("tags", TaggedFields),
    )  # fmt: skip


class Metadata(Request[MetadataRequest_v10]):
    """Asks for topics by name; it creates none."""

    API_KEY = 3

    def __init__(self, topics: Iterable[str]) -> None:
        self._topics: list[tuple[int, int, str, dict[int, bytes]]] = [
            (0, 0, topic, {}) for topic in topics
        ]

    def build(self, request_struct_class: type[MetadataRequest_v10]) -> RequestStruct:
        """Return the struct."""
        return request_struct_class(self._topics, False, False, False, {})  # noqa: FBT003


# Error codes, as the protocol guide numbers them; aiokafka does not know them all.
NONE = 0
CORRUPT_MESSAGE = 2
UNKNOWN_TOPIC_OR_PARTITION = 3
LEADER_NOT_AVAILABLE = 5
NOT_LEADER = 6
REQUEST_TIMED_OUT = 7
MESSAGE_TOO_LARGE = 10
NETWORK_EXCEPTION = 13
COORDINATOR_LOADING = 14
COORDINATOR_NOT_AVAILABLE = 15
NOT_COORDINATOR = 16
RECORD_LIST_TOO_LARGE = 18
NOT_ENOUGH_REPLICAS = 19
NOT_ENOUGH_REPLICAS_AFTER_APPEND = 20
ILLEGAL_GENERATION = 22
UNKNOWN_MEMBER_ID = 25
REBALANCE_IN_PROGRESS = 27
TOPIC_AUTHORIZATION_FAILED = 29
GROUP_AUTHORIZATION_FAILED = 30
CLUSTER_AUTHORIZATION_FAILED = 31
INVALID_TIMESTAMP = 32
POLICY_VIOLATION = 44
OUT_OF_ORDER_SEQUENCE_NUMBER = 45
INVALID_PRODUCER_EPOCH = 47
INVALID_TXN_STATE = 48
INVALID_PRODUCER_ID_MAPPING = 49
CONCURRENT_TRANSACTIONS = 51
TRANSACTION_COORDINATOR_FENCED = 52
TRANSACTIONAL_ID_AUTHORIZATION_FAILED = 53
OPERATION_NOT_ATTEMPTED = 55
STORAGE_ERROR = 56
UNKNOWN_PRODUCER_ID = 59
FENCED_LEADER_EPOCH = 74
FENCED_INSTANCE_ID = 82
INVALID_RECORD = 87
UNSTABLE_OFFSET_COMMIT = 88
PRODUCER_FENCED = 90
TRANSACTION_ABORTABLE = 120

_NAMES = {code: name for name, code in dict(globals()).items() if type(code) is int}


def name_of(code: int) -> str:
    """Return Kafka's name of an error code."""
    return _NAMES.get(code, f"Kafka error {code}")


TRY_LEADER_AGAIN = frozenset({
    UNKNOWN_TOPIC_OR_PARTITION, LEADER_NOT_AVAILABLE, NOT_LEADER, REQUEST_TIMED_OUT,
    NETWORK_EXCEPTION, NOT_ENOUGH_REPLICAS, NOT_ENOUGH_REPLICAS_AFTER_APPEND, STORAGE_ERROR,
    FENCED_LEADER_EPOCH,
})  # fmt: skip
"""Refusals of a produce request that pass: the same bytes may be sent again."""

TRY_COORDINATOR_AGAIN = frozenset({
    COORDINATOR_LOADING, COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR, CONCURRENT_TRANSACTIONS,
    UNKNOWN_TOPIC_OR_PARTITION,
})  # fmt: skip
"""Refusals of a coordinator that pass."""

COORDINATOR_MOVED = frozenset({COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR})

FENCED = frozenset({
    ILLEGAL_GENERATION, UNKNOWN_MEMBER_ID, REBALANCE_IN_PROGRESS, INVALID_PRODUCER_EPOCH,
    FENCED_INSTANCE_ID, PRODUCER_FENCED,
})  # fmt: skip
"""We are not the owner any more."""

RECORD_REFUSED = frozenset({
    CORRUPT_MESSAGE, MESSAGE_TOO_LARGE, RECORD_LIST_TOO_LARGE, INVALID_TIMESTAMP,
    POLICY_VIOLATION, INVALID_RECORD,
})  # fmt: skip
"""It is about a record, or about how many there are in a batch: half of them may pass."""

DENIED = frozenset({
    TOPIC_AUTHORIZATION_FAILED, GROUP_AUTHORIZATION_FAILED, CLUSTER_AUTHORIZATION_FAILED,
    TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
})  # fmt: skip
"""A permission is missing."""

PRODUCER_LOST = frozenset({
    OUT_OF_ORDER_SEQUENCE_NUMBER, INVALID_TXN_STATE, INVALID_PRODUCER_ID_MAPPING,
    TRANSACTION_COORDINATOR_FENCED, UNKNOWN_PRODUCER_ID, TRANSACTION_ABORTABLE,
})  # fmt: skip
"""The transaction is over, and nobody else has our work: a new producer does it again."""
