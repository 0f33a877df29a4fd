"""Dead letters: what becomes of a record that broke its contract, or on which an agent raised.

The bytes, the key, the headers and the timestamp stay as they came. Headers say where it came from
and which rule it broke, under the names of Kafka Streams 4.2 (KIP-1034, ``__streams.errors.*``) and
our own ``__contract.*``. They never hold the offending value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.contracts.limits import Violation
    from engine.errors import AgentFailed
    from engine.inbox import Refused
    from engine.record import Batch, Headers, Run
    from engine.topic import Topic


def _origin(topic: str, partition: int, offset: int) -> tuple[tuple[str, bytes], ...]:
    return (
        ("__streams.errors.topic", topic.encode()),
        ("__streams.errors.partition", b"%d" % partition),
        ("__streams.errors.offset", b"%d" % offset),
    )


def dead_letter(topic: Topic, batch: Batch, index: int, violation: Violation) -> Refused:
    """Return the dead letter for record ``index`` of a batch."""
    contract = topic.contract
    offset = batch.offsets[index]
    headers: Headers = (
        *batch.headers[index],
        ("__streams.errors.exception", b"ContractViolation"),
        ("__streams.errors.message", violation.message.encode()),
        *_origin(topic.name, batch.tp.partition, offset),
        ("__contract.name", contract.name.encode()),
        ("__contract.version", contract.version.encode()),
        ("__contract.rule", violation.rule.encode()),
        ("__contract.field", violation.field.encode()),
        ("__contract.severity", violation.severity.encode()),
    )
    return offset, batch.keys[index], batch.values[index], batch.timestamps[index], headers


def failure_headers(topic: Topic, run: Run, index: int, error: AgentFailed) -> Headers:
    """Return the headers of the dead letter for an event on which an agent raised."""
    cause = error.cause
    return (
        *run.headers[index],
        ("__streams.errors.exception", type(cause).__name__.encode()),
        ("__streams.errors.message", f"agent {error.agent} raised".encode()),
        *_origin(topic.name, run.tp.partition, run.offsets[index]),
        ("__contract.name", topic.contract.name.encode()),
        ("__contract.version", topic.contract.version.encode()),
        ("__contract.rule", f"agent.{error.agent}".encode()),
    )
