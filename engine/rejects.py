"""Dead letters: what becomes of a record that broke its contract, or on which an agent raised.

The bytes, the key, the headers and the timestamp stay as they came. Headers say where it came from
and which rule it broke, under the names of Kafka Streams 4.2 (KIP-1034, ``__streams.errors.*``) and
our own ``__contract.*``. They never hold the offending value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.errors import RecordRefused

if TYPE_CHECKING:
    from collections.abc import Iterable

    from engine.contracts.limits import Violation
    from engine.errors import AgentFailed
    from engine.metrics import Metrics
    from engine.outbox import Lane, Outbox
    from engine.record import TP, Batch, Headers, Piece, Refused, Run
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
    """Return the headers of the dead letter for an event that an agent could not bear."""
    cause = error.cause
    message = f"agent {error.agent} raised"
    if isinstance(cause, RecordRefused):
        message = f"what agent {error.agent} made of it is refused: {cause.reason}"
    return (
        *run.headers[index],
        ("__streams.errors.exception", type(cause).__name__.encode()),
        ("__streams.errors.message", message.encode()),
        *_origin(topic.name, run.tp.partition, run.offsets[index]),
        ("__contract.name", topic.contract.name.encode()),
        ("__contract.version", topic.contract.version.encode()),
        ("__contract.rule", f"agent.{error.agent}".encode()),
        ("__headrace.agent", error.agent.encode()),
        ("__headrace.attempts", b"%d" % error.tries),
    )


class DeadLetters:
    """The dead letters of one task, on their way into its outbox: a topic beside each input.

    A record is buried when every agent has passed it, and not when it is decoded. A cut can fall
    between the two, and whoever goes on from there may have another contract: what it takes must
    not be a dead letter already, and what it refuses must not count as one.

    Attributes:
        begun: where the last piece of each input ends.
    """

    def __init__(
        self, partition: int, topics: Iterable[Topic], outbox: Outbox, metrics: Metrics
    ) -> None:
        self._partition = partition
        self._topics = {topic.name: topic for topic in topics}
        self._outbox = outbox
        self._metrics = metrics
        self.begun: dict[TP, int] = {}
        self._waiting: dict[str, list[Refused]] = {name: [] for name in self._topics}

    def has(self, topic: str) -> bool:
        """Say whether a topic is one of them."""
        return any(topic == each.dead_letters for each in self._topics.values())

    def _lane(self, topic: Topic) -> tuple[Lane, int]:
        lane = self._outbox.lane(topic.dead_letters)
        return lane, self._partition % lane.partitioner.partitions

    def begin(self, piece: Piece) -> None:
        """Keep what broke the contract in a piece until it is passed."""
        self.begun[piece.run.tp] = piece.run.next_offset
        self._waiting[piece.run.tp.topic] += piece.refused

    def bury(self, name: str, seen: int, passed: int) -> None:
        """Write what broke an input's contract, from offset ``seen`` on and below ``passed``."""
        waiting = self._waiting[name]
        if not waiting:
            return
        topic = self._topics[name]
        lane, home = self._lane(topic)
        count = 0
        for offset, key, value, timestamp, headers in waiting:
            if seen <= offset < passed:
                lane.put(key, value, timestamp, headers, partition=home)
                count += 1
        self._waiting[name] = [row for row in waiting if row[0] >= passed]
        self._metrics.dead_letters(name, count)

    def add(self, run: Run, index: int, error: AgentFailed) -> None:
        """Write an event that an agent could not bear."""
        topic = self._topics[run.tp.topic]
        lane, home = self._lane(topic)
        headers = failure_headers(topic, run, index, error)
        lane.put(run.keys[index], run.values[index], run.timestamps[index], headers, partition=home)
        self._metrics.dead_letters(topic.name, 1)
