"""No engine: aiokafka's consumer alone, with nothing done to the records but counting them."""

import asyncio
import os
from collections import Counter

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

EVERY = 20


async def main() -> None:
    broker = os.environ["BENCH_BROKER"]
    consumer = AIOKafkaConsumer(
        os.environ["BENCH_INPUT"],
        bootstrap_servers=broker,
        group_id=os.environ["BENCH_ID"],
        auto_offset_reset="earliest",
    )
    producer = AIOKafkaProducer(bootstrap_servers=broker)
    seen: Counter[int] = Counter()
    async with producer, consumer:
        while not consumer.assignment():
            await asyncio.sleep(0.01)
        print("READY", flush=True)
        while True:
            for tp, records in (await consumer.getmany(timeout_ms=200)).items():
                before = seen[tp.partition]
                seen[tp.partition] += len(records)
                for _ in range(seen[tp.partition] // EVERY - before // EVERY):
                    await producer.send("progress", b"1", partition=tp.partition)


asyncio.run(main())
