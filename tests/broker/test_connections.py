"""Connections that go away under those who use them."""

import asyncio

import pytest
import uvloop
from aiokafka.client import ConnectionGroup
from aiokafka.protocol.metadata import MetadataRequest

from engine.config import make
from engine.devbroker import DevBroker
from engine.kafka.client import connect

pytestmark = pytest.mark.broker


def test_a_connection_that_is_lost_is_replaced_on_uvloop_too(kafka: DevBroker) -> None:
    """By the next request, and by the metadata task, which must not end for good."""

    async def lose(client) -> None:
        node = client.get_random_node()
        await client.send(node, MetadataRequest([]))
        connection = client._conns[node, ConnectionGroup.DEFAULT]
        connection._reader.feed_data(b"x")  # of an answer: its reader does not see the end yet
        connection._writer.transport.abort()
        await asyncio.sleep(0)

    async def run() -> None:
        client = await connect(make({"id": "lost", "broker": kafka.bootstrap}), "test")
        try:
            await lose(client)
            assert (await client.send(client.get_random_node(), MetadataRequest([]))).brokers
            await lose(client)
            async with asyncio.timeout(10):
                assert await client.force_metadata_update()
                assert await client.force_metadata_update()
        finally:
            await client.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
