"""A Kafka cluster in memory, as far as exactly-once depends on it, for several workers at once.

It keeps the rules that matter and that a real broker keeps: transactions with ids, epochs and a
state of their own; markers that reach the partitions one by one, after EndTxn was answered; a last
stable offset; offsets that are pending until the group's marker comes; a group with generations,
session timeouts and eager rebalances; fencing; sequence numbers. A request that is lost on its way,
or whose answer is, is decided by :mod:`tests.simulation.faults`.

Requests come in as the engine's own code builds them (:mod:`engine.kafka.producer` runs on this
cluster unchanged); what the two sides disagree on would show on a real broker, in ``tests/broker``.
"""

import asyncio
from types import SimpleNamespace

from aiokafka.errors import RequestTimedOutError
from aiokafka.record.memory_records import MemoryRecords

from engine.edges import Position
from engine.kafka import protocol
from engine.record import TP
from tests.simulation.simulated_group import Group

PLAIN, PENDING, COMMITTED, ABORTED, MARKER = range(5)
READABLE = (PLAIN, COMMITTED)

INVALID_TXN_STATE = 48
OUT_OF_ORDER_SEQUENCE = 45
INVALID_PRODUCER_ID_MAPPING = 49


class Partition:
    """One partition's log."""

    def __init__(self):
        self.rows = []
        self.states = []
        self.transactions = []  # (producer id, number), or None
        self.first = 0  # the log's start: what was before it, retention has taken
        self.stable = 0  # the last stable offset
        self.open = {}  # producer id -> first offset of its open transaction
        self.sequences = {}  # producer id -> (epoch, next sequence, first sequence and offset last)
        self.gone = set()  # offsets that compaction has taken

    def __len__(self):
        return len(self.rows)

    def append(self, row, state, transaction=None):
        self.rows.append(row)
        self.states.append(state)
        self.transactions.append(transaction)
        if not self.open:
            self.stable = len(self.rows)

    def readable(self, start=0, stop=None):
        """Return (offset, record) of the committed records in [start, stop)."""
        stop = self.stable if stop is None else min(stop, self.stable)
        return [(n, self.rows[n]) for n in range(start, stop) if self.states[n] in READABLE]

    def fetch(self, start, stop):
        """Return what is still there of it: invariants look at what was, readers at what is."""
        return [row for row in self.readable(start, stop) if row[0] not in self.gone]

    def compact(self, until):
        """Take away what a later record of its key has replaced. Deletions stay, for a day."""
        latest = {row[0]: offset for offset, row in self.readable(0, until)}
        self.gone |= {n for n, row in self.readable(0, until) if latest[row[0]] != n}

    def retain(self, until):
        """Take away the beginning, as far as it is empty, and deletions with it.

        Who has not seen one finds that its place is gone. Compaction alone never does that.
        """
        kept = (n for n, row in self.fetch(self.first, until) if row[1] is not None)
        self.first = next(kept, min(until, self.stable))

    def mark(self, transaction, state):
        """Write a transaction's marker."""
        for offset in range(self.open.pop(transaction[0], len(self.rows)), len(self.rows)):
            if self.transactions[offset] == transaction:
                self.states[offset] = state
        self.stable = min(self.open.values(), default=len(self.rows))
        self.append(None, MARKER)


class Transactional:
    """What the transaction coordinator knows of one transactional id."""

    def __init__(self, name, number):
        self.name = name
        self.id = number
        self.epoch = -1
        self.state = "empty"  # empty, ongoing, ending
        self.outcome = None  # of the last one
        self.partitions = set()
        self.offsets = False
        self.serial = 0
        self.timeout_s = 60.0


class Cluster:
    """See the module. Only one node, which never fails: its faults are those of its answers."""

    def __init__(self, loop, faults, say=None):
        self.loop = loop
        self.faults = faults
        self.random = faults.random
        self.partitions = {}
        self.widths = {}
        self.default_width = 1
        self.batch_bytes = {}  # the most that a topic takes
        self.transactional = {}
        self.group = Group(self)
        self.readers = []
        self.events = []
        self._say = say
        self.away_until = 0.0

    def say(self, *what):
        """Add a line to the trace."""
        event = (round(self.loop.time(), 6), *what)
        self.events.append(event)
        if self._say is not None:
            self._say(*event)

    def create(self, topic, partitions):
        """Create a topic."""
        if topic not in self.widths:
            self.widths[topic] = partitions
            for number in range(partitions):
                self.partitions[TP(topic, number)] = Partition()

    def produce(self, tp, row):
        """Append a record from outside, in no transaction."""
        self.partitions[tp].append(row, PLAIN)
        self.tell(tp)

    def retain(self):
        """Take away what nobody needs: what is replaced, and inputs that are done with."""
        for tp, log in self.partitions.items():
            at = self.group.committed.get(tp)
            if tp.topic.endswith("-changelog"):
                log.compact(log.stable)
            elif at is not None and tp.topic == "users":
                log.compact(at.offset)
                log.retain(at.offset)
            elif at is not None:
                log.first = max(log.first, at.offset)

    def tell(self, tp):
        """Wake those who wait for records of a partition."""
        for reader in self.readers:
            reader.tell(tp)

    # -- requests ----------------------------------------------------------------------------

    def ask(self, process, what, work):
        """Have ``work`` done at the cluster, some time; return a future of its answer.

        What ``work`` returns may be a future. An answer may never come: callers have deadlines.
        """
        if self.faults.over:
            raise RequestTimedOutError(what)
        answer = self.loop.create_future()
        if process.alive:
            fate = self.faults.fate(what)
            if fate.request_lost or fate.answer_lost:
                self.say(what, process.name, "lost" if fate.request_lost else "answer lost")
            if not fate.request_lost:
                self.loop.later(fate.request_s, self._arrive, work, answer, fate)
        return answer

    def _arrive(self, work, answer, fate):
        """Do what was asked for and send the answer back."""

        def send_back(result):
            if not fate.answer_lost:
                self.loop.later(fate.answer_s, give, result)

        def give(result):
            if not answer.done():
                answer.set_result(result)

        result = work()
        if isinstance(result, asyncio.Future):
            result.add_done_callback(
                lambda done: send_back(done.result()), context=self.loop.outside
            )
        else:
            send_back(result)

    # -- transactions ------------------------------------------------------------------------

    def init_producer(self, name, timeout_ms):
        found = self.transactional.get(name)
        if found is None:
            found = self.transactional[name] = Transactional(name, 1000 + len(self.transactional))
        found.timeout_s = timeout_ms / 1000
        code = self._away()
        if not code and found.state == "ongoing":
            found.epoch += 1
            self._end(found, ABORTED)
        if not code and found.state == "ending":
            code = protocol.CONCURRENT_TRANSACTIONS
        if code:
            return SimpleNamespace(error_code=code, producer_id=-1, producer_epoch=-1)
        found.epoch += 1
        found.outcome = None
        self.say("InitProducerId", name, found.epoch)
        return SimpleNamespace(error_code=0, producer_id=found.id, producer_epoch=found.epoch)

    def move(self, for_s):
        """Give the transactions to another node, which has to read their log first."""
        self.away_until = self.loop.time() + for_s

    def _away(self):
        if self.loop.time() < self.away_until:
            self.faults.fired["transactions: on the move"] += 1
            return self.random.choice((protocol.COORDINATOR_LOADING, protocol.NOT_COORDINATOR))
        return self.faults.refuse_request()

    def _find(self, name, producer_id, epoch):
        """Return a producer's transaction, or the error code for it; coordinators may be away."""
        if code := self._away():
            return code
        found = self.transactional.get(name)
        if found is None or found.id != producer_id:
            return INVALID_PRODUCER_ID_MAPPING
        if found.epoch != epoch:
            return protocol.PRODUCER_FENCED
        return found

    def _begin(self, found):
        """Return an error code, or 0 and the transaction is open."""
        if found.state == "ending":
            return protocol.CONCURRENT_TRANSACTIONS
        if found.state == "empty":
            found.state = "ongoing"
            found.serial += 1
            self.loop.later(found.timeout_s, self._time_out, found, found.serial)
        return 0

    def _time_out(self, found, serial):
        if found.state == "ongoing" and found.serial == serial:
            self.say("transaction timed out", found.name)
            found.epoch += 1
            self._end(found, ABORTED)

    def add_partitions(self, name, producer_id, epoch, topics):
        found = self._find(name, producer_id, epoch)
        code = found if isinstance(found, int) else self._begin(found)
        if not code:
            found.partitions |= {TP(topic, n) for topic, numbers in topics for n in numbers}
        errors = [(topic, [(n, code) for n in numbers]) for topic, numbers in topics]
        return SimpleNamespace(errors=errors)

    def add_offsets(self, name, producer_id, epoch):
        found = self._find(name, producer_id, epoch)
        code = found if isinstance(found, int) else self._begin(found)
        if not code:
            found.offsets = True
        return SimpleNamespace(error_code=code)

    def end_transaction(self, name, producer_id, epoch, commits):
        found = self._find(name, producer_id, epoch)
        if isinstance(found, int):
            code = found
        elif found.state == "ongoing":
            self._end(found, COMMITTED if commits else ABORTED)
            code = protocol.NOT_COORDINATOR if self.faults.forget_end() else 0
        elif found.state == "ending":
            code = protocol.CONCURRENT_TRANSACTIONS
        else:  # asked again, it says again what it did
            code = 0 if found.outcome == (COMMITTED if commits else ABORTED) else INVALID_TXN_STATE
        return SimpleNamespace(error_code=code)

    def _end(self, found, state):
        """Decide a transaction; its markers follow, one by one."""
        self.say("commit" if state == COMMITTED else "abort", found.name, found.epoch)
        found.state, found.outcome = "ending", state
        targets = sorted(found.partitions)
        if found.offsets:
            targets.append(None)
        left = len(targets)

        def mark(tp):
            nonlocal left
            left -= 1
            if tp is None:
                self.group.decide(found.id, committed=state == COMMITTED)
            else:
                self.partitions[tp].mark((found.id, found.serial), state)
                self.tell(tp)
            if left == 0:
                found.state = "empty"
                found.partitions = set()
                found.offsets = False

        for tp in targets:
            self.loop.later(self.faults.marker_s(), mark, tp)
        if not targets:
            found.state = "empty"

    def append_batches(self, transactional_id, topics):
        """Take a produce request."""
        answers = []
        for topic, partitions in topics:
            rows = []
            for number, data in partitions:
                code, base = self.faults.refuse_batch(), -1
                if not code:
                    code, base = self._append(transactional_id, TP(topic, number), data)
                    if not code and self.faults.forget_batch():  # taken, but not said so
                        code = protocol.NOT_ENOUGH_REPLICAS_AFTER_APPEND
                rows.append((number, code, base))
            answers.append((topic, rows))
        return SimpleNamespace(topics=answers)

    def _append(self, transactional_id, tp, data):
        records = MemoryRecords(data)
        batch = records.next_batch()
        owner, epoch, sequence = batch.producer_id, batch.producer_epoch, batch.base_sequence
        found = self.transactional.get(transactional_id)
        if found is None or (found.id, found.epoch) != (owner, epoch):
            return protocol.PRODUCER_FENCED, -1
        if found.state != "ongoing" or tp not in found.partitions:
            return INVALID_TXN_STATE, -1
        if len(data) > self.batch_bytes.get(tp.topic, len(data)):
            self.faults.fired["batch too large"] += 1
            return protocol.MESSAGE_TOO_LARGE, -1
        log = self.partitions[tp]
        known_epoch, following, last = log.sequences.get(owner, (-1, 0, (-1, -1)))
        if known_epoch == epoch and sequence == last[0]:
            return 0, last[1]  # sent again
        if sequence != (following if known_epoch == epoch else 0):
            return OUT_OF_ORDER_SEQUENCE, -1
        base = len(log)
        log.open.setdefault(owner, base)
        for record in batch:
            row = (record.key, record.value, record.timestamp, tuple(record.headers))
            log.append(row, PENDING, (owner, found.serial))
        log.sequences[owner] = (epoch, sequence + len(log) - base, (sequence, base))
        return 0, base

    def pend(self, fields):
        """Take a TxnOffsetCommit."""
        name, _, producer_id, epoch, generation, member, instance, topics = fields
        positions = {
            TP(topic, number): Position(offset, metadata)
            for topic, partitions, _ in topics
            for number, offset, _, metadata, _ in partitions
        }
        found = self._find(name, producer_id, epoch)
        if isinstance(found, int):
            code = found
        elif found.state != "ongoing" or not found.offsets:
            code = INVALID_TXN_STATE
        else:
            code = self.group.check(generation, member, instance)
        if not code:
            self.group.pend(found, generation, member, positions)
        answers = [(topic, [(row[0], code, {}) for row in rows], {}) for topic, rows, _ in topics]
        return SimpleNamespace(topics=answers)

    def hanging(self):
        """Return the transactions that are not ended, and partitions that wait for a marker."""
        return [
            *(found.name for found in self.transactional.values() if found.state != "empty"),
            *(str(tp) for tp, log in self.partitions.items() if log.open),
        ]
