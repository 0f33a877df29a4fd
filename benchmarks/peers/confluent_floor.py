"""No engine: confluent-kafka's consumer, with nothing done to the records but counting them."""

# ruff: noqa: ANN001, ANN201
import os
from collections import Counter

from confluent_kafka import Consumer, Producer

EVERY = 20
consumer = Consumer(
    {
        "bootstrap.servers": os.environ["BENCH_BROKER"],
        "group.id": os.environ["BENCH_ID"],
        "auto.offset.reset": "earliest",
    }
)
producer = Producer({"bootstrap.servers": os.environ["BENCH_BROKER"]})


def assigned(_consumer, _partitions):
    print("READY", flush=True)


consumer.subscribe([os.environ["BENCH_INPUT"]], on_assign=assigned)
seen = Counter()
while True:
    for message in consumer.consume(10_000, timeout=0.2):
        partition = message.partition()
        seen[partition] += 1
        if seen[partition] % EVERY == 0:
            producer.produce("progress", b"1", partition=partition)
    producer.poll(0)
