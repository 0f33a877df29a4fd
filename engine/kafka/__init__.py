"""The engine's edges on Apache Kafka: the only package that speaks aiokafka.

aiokafka lends its connections, its protocol structs, its group membership and its record codecs.
Transactions are our own (:mod:`engine.kafka.producer`), since its producer commits a transaction of
which a batch was refused. What is used of it that is not public is pinned by
``tests/broker/test_aiokafka_contract.py``.
"""

from engine.kafka.edges import kafka_edges

__all__ = ["kafka_edges"]
