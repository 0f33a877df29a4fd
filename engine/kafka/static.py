"""Static membership done right (KIP-345): what aiokafka leaves out of it.

A worker joins with a name of its own (its instance id). One that was killed and comes back under
the same name gets its tasks back at once, without a rebalance and without waiting for the session
timeout. aiokafka sends the name when it joins and not with its heartbeats, so that two workers of
one name would throw each other out for ever; here one that is thrown out twice stops.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from aiokafka import errors
from aiokafka.protocol.group import HeartbeatRequest, LeaveGroupRequest

from engine.kafka import protocol

if TYPE_CHECKING:
    from engine.config import Config

log = logging.getLogger(__name__)

TWICE_S = 60.0
"""Being thrown out by name happens to a single worker too (a coordinator that moves in a rebalance
forgets who came back); twice within so long, there are two of one name."""


class FencedInstanceIdError(errors.BrokerResponseError):
    """Another member has joined under our instance id."""

    errno = protocol.FENCED_INSTANCE_ID
    message = "FENCED_INSTANCE_ID"


# aiokafka would call it UnknownError, which nobody can tell from others
errors.kafka_errors[protocol.FENCED_INSTANCE_ID] = FencedInstanceIdError


def name_heartbeats(coordinator: Any) -> None:
    """Let a group coordinator of aiokafka's say its instance id with each heartbeat."""
    plain = coordinator._send_req

    async def send(request: Any) -> Any:
        if isinstance(request, HeartbeatRequest):
            request = protocol.Heartbeat(
                coordinator.group_id,
                coordinator.generation,
                coordinator.member_id,
                coordinator._group_instance_id,
            )
        return await plain(request)

    coordinator._send_req = send


def is_fenced(error: BaseException) -> bool:
    """Say whether an error of aiokafka's means that another worker has our name."""
    return FencedInstanceIdError.__name__ in repr(error)


def fenced(config: Config, instance: str) -> str:
    """Return the sentence for a worker whose name another one has taken."""
    where = (
        "with instance=" if config.instance else f"with --state-dir (it is in {config.state_dir})"
    )
    return (
        f"another worker of {config.id} has joined the group under this one's name {instance!r}, "
        f"so this one stops. Give each worker a name of its own {where}"
    )


async def leave(coordinator: Any) -> None:
    """Leave the group for good: its other members get our tasks now, not after the timeout."""
    if coordinator.generation <= 0 or coordinator.coordinator_id is None:
        return
    request = LeaveGroupRequest(coordinator.group_id, coordinator.member_id)
    try:
        await coordinator._send_req(request)
    except errors.KafkaError as error:
        log.debug("could not leave the group: %r", error)
