"""The edges of one simulated worker: the real ones where they only ask, fakes where they fetch.

:class:`engine.kafka.producer.KafkaOutlet` runs as it is, on a client that speaks to the simulated
cluster. Of the source, positions, membership and parking are the real code; the part that stands
for aiokafka's coordinator and fetcher follows its steps: a generation that changes with the answer
to JoinGroup, before anybody knows the assignment; a member id that is dropped when the group says
so; ``revoked`` once per rebalance, with heartbeats going on; an assignment that stays in place
until the next one.
"""

import asyncio
import contextlib
from functools import partial
from pathlib import Path

from aiokafka.errors import IllegalStateError, KafkaConnectionError, RequestTimedOutError

from engine.edges import Edges
from engine.errors import BrokerError, ConfigError, InputLost
from engine.kafka import protocol
from engine.kafka.assignor import Group, assignor_for
from engine.kafka.consumer import KafkaSource
from engine.kafka.pertask import TaskOutlets
from engine.kafka.producer import KafkaOutlet
from engine.record import TP, Batch
from tables.errors import StoreLocked
from tables.memory import MemoryStore
from tests.simulation.simulated_group import REBALANCE_TIMEOUT_S
from tests.simulation.simulated_loop import Killed

REQUEST_TIMEOUT_S = 5.0
STALLED_S = 60.0
WALL_MS = 1_700_000_000_000
RETRY_S = 0.05
FETCH_S = 0.01


class SimulatedClock:
    """The loop's time."""

    def __init__(self, loop):
        self._loop = loop

    def now_ms(self):
        return WALL_MS + int(self._loop.time() * 1000)

    def elapsed_ms(self):
        return self._loop.time() * 1000

    def call_later(self, delay_ms, call):
        return self._loop.call_later(delay_ms / 1000, call)


class Client:
    """Stands for ``AIOKafkaClient``; the only bytes that are built are the records'."""

    def __init__(self, cluster, process):
        self._cluster = cluster
        self._process = process
        self._waiting = {}  # answers, in the order of their questions
        self.cluster = self

    def leader_for_partition(self, tp):
        return 0

    async def _wait_on_metadata(self, topic):
        await asyncio.sleep(0)

    async def force_metadata_update(self):
        await asyncio.sleep(0.001)

    async def coordinator_lookup(self, kind, key):
        await self.ask("FindCoordinator", lambda: 0)
        return 0

    async def ready(self, node, group=None):
        return True

    async def close(self):
        """Who waits for an answer gets an error: the connection is gone."""
        for answer in self._waiting:
            if not answer.done():
                answer.set_exception(KafkaConnectionError("closed"))
        self._waiting.clear()
        await asyncio.sleep(0)

    async def ask(self, what, work, timeout_s=REQUEST_TIMEOUT_S):
        """Ask the cluster; no answer for too long is an error."""
        faults = self._cluster.faults
        faults.point(self._process, f"before {what}")
        waiting = self._cluster.ask(self._process, what, work)
        self._waiting[waiting] = None
        try:
            async with asyncio.timeout(timeout_s):
                answer = await waiting
        except TimeoutError as error:
            raise RequestTimedOutError(what) from error
        finally:
            self._waiting.pop(waiting, None)
        faults.point(self._process, f"after {what}")
        return answer

    async def send(self, node, request, group=None):
        """Send a request of aiokafka's or of the engine's own."""
        what = type(request).__name__.removesuffix("Request")
        return await self.ask(what, self._work(what, request))

    def _work(self, what, request):
        """Return what the cluster does for a request, when it arrives."""
        cluster, group = self._cluster, self._cluster.group
        if what == "InitProducerId":
            name, timeout_ms = request._transactional_id, request._transaction_timeout_ms
            return partial(cluster.init_producer, name, timeout_ms)
        if what in {"TxnOffsetCommit", "OffsetFetch"}:  # the engine's own
            fields = request._fields
            offsets = what == "OffsetFetch"
            return partial(group.fetch, fields[1]) if offsets else partial(cluster.pend, fields)
        if what == "Produce":
            return partial(cluster.append_batches, request._transactional_id, request._topics)
        producer = request._transactional_id, request._producer_id, request._producer_epoch
        if what == "AddPartitionsToTxn":
            return partial(cluster.add_partitions, *producer, request._topics)
        if what == "AddOffsetsToTxn":
            return partial(cluster.add_offsets, *producer)
        assert what == "EndTxn", f"the simulated cluster knows no {what}"
        return partial(cluster.end_transaction, *producer, request._transaction_result)


class SimulatedOutlet(KafkaOutlet):
    """The real producer on a simulated connection."""

    def __init__(self, config, transactional_id, clock, cluster, process):
        super().__init__(config, transactional_id, clock)
        self._cluster = cluster
        self._process = process

    async def _connect(self):
        await asyncio.sleep(0.002)
        self._client = Client(self._cluster, self._process)


class SimulatedTaskOutlets(TaskOutlets):
    """The real producers, one a task, on simulated connections."""

    def __init__(self, config, clock, cluster, process):
        super().__init__(config, clock)
        self._parts = clock, cluster, process

    async def _connect(self):
        await asyncio.sleep(0.002)

    async def own(self, tasks):
        for task in tasks:
            if task not in self._outlets:
                name = f"{self._config.id}-task-{task}"
                self._outlets[task] = SimulatedOutlet(self._config, name, *self._parts)
        await super().own(tasks)


class Coordinator:
    """Stands for aiokafka's ``GroupCoordinator``."""

    def __init__(self, instance):
        self.generation = -1
        self.member_id = ""
        self._group_instance_id = instance
        self.coordinator_id = 0

    async def ensure_coordinator_known(self):
        await asyncio.sleep(0)

    def coordinator_dead(self):
        """It is found again at once."""


class Consumer:
    """Stands for ``AIOKafkaConsumer``: positions of the assigned partitions."""

    def __init__(self, client, instance):
        self._client = client
        self._coordinator = Coordinator(instance)
        self.assignment = None
        self.at = {}
        self.paused = set()

    def _own(self, tp):
        assert self.assignment is not None
        if TP(*tp) not in self.assignment:
            raise IllegalStateError(f"No current assignment for partition {tp}")
        return TP(*tp)

    def seek(self, tp, offset):
        self.at[self._own(tp)] = offset

    def pause(self, *tps):
        self.paused |= {self._own(tp) for tp in tps}

    def resume(self, *tps):
        self.paused -= {self._own(tp) for tp in tps}


class SimulatedSource(KafkaSource):
    """See the module."""

    def __init__(self, config, assignor, instance, cluster, process):
        super().__init__(config, assignor, instance)
        self._cluster = cluster
        self._process = process
        self._loop = cluster.loop
        self._session_s = config.session_timeout_ms / 1000
        self._known_ends = {}
        self._reassigning = False
        self._closing = False
        self._rejoin = asyncio.Event()
        self._heart = None
        self._routine = None
        self._prepared = False
        self._told = False
        self._told_gone = {}
        self.fenced = False

    def ask_for(self, partition_bytes):
        """Any number of records may come at a time."""

    # -- the group ---------------------------------------------------------------------------

    async def start(self, topics, *, revoked, assigned):
        """Join the group."""
        self._revoked, self._assigned = revoked, assigned
        self._topics = sorted(topics)
        await asyncio.sleep(0.005)
        self._consumer = Consumer(Client(self._cluster, self._process), self._instance)
        self._group = self._consumer._coordinator
        self._cluster.readers.append(self)
        self._process.on_kill.append(self._silence)
        self._rejoin.set()
        self._routine = asyncio.get_running_loop().create_task(self._coordinate(), name="group")

    def _outlet_of(self, writer):
        clock = SimulatedClock(self._cluster.loop)
        return SimulatedOutlet(self._config, writer, clock, self._cluster, self._process)

    @property
    def started(self):
        """Whether the group was joined."""
        return self._routine is not None

    def _silence(self):
        if self in self._cluster.readers:
            self._cluster.readers.remove(self)

    async def _coordinate(self):
        while not self._closing:
            if not self._rejoin.is_set():
                await self._rejoin.wait()
                continue
            if not self._prepared:
                self._reassigning = True
                await self._revoked()
                self._prepared = True
            await self._stop_heart()
            if await self._join():
                self._prepared = False
                self._heart = asyncio.get_running_loop().create_task(self._beat(), name="heart")

    async def _join(self):
        """Go through a rebalance; say whether there is an assignment at its end."""
        answer = await self._ask_to_join()
        if answer is None:
            await asyncio.sleep(RETRY_S)
            return False
        group = self._group
        if answer.error_code:
            self._refused(answer.error_code)
            await asyncio.sleep(RETRY_S)
            return False
        group.member_id, group.generation = answer.member_id, answer.generation
        member, generation, assignments = answer.member_id, answer.generation, {}
        if answer.leads:
            await asyncio.sleep(0)
            assignments = self._assignor.assign(self, answer.subscriptions)
        self._rejoin.clear()
        try:
            answer = await self._consumer._client.ask(
                "SyncGroup",
                lambda: self._cluster.group.sync(member, self._instance, generation, assignments),
            )
        except RequestTimedOutError:
            self._rejoin.set()
            return False
        if answer.error_code:
            self._rejoin.set()
            self._refused(answer.error_code)
            return False
        self._take(answer.assignment)
        return True

    async def _ask_to_join(self):
        """Return the answer to a JoinGroup, which may take a whole rebalance, or None."""
        who = self._group.member_id, self._instance, self._process.name, self._session_s
        subscription = self._assignor.metadata(self._topics)
        try:
            return await self._consumer._client.ask(
                "JoinGroup",
                lambda: self._cluster.group.join(*who, subscription),
                REQUEST_TIMEOUT_S + REBALANCE_TIMEOUT_S,
            )
        except RequestTimedOutError:
            return None

    def _refused(self, code):
        """Do what aiokafka's coordinator does about an error code of the group's."""
        if code in {protocol.UNKNOWN_MEMBER_ID, protocol.ILLEGAL_GENERATION}:
            self._reset_generation()
        elif code == protocol.REBALANCE_IN_PROGRESS:
            self._rejoin.set()
        elif code == protocol.FENCED_INSTANCE_ID:  # its tasks end; the engine is told by poll
            self.fenced = self._closing = True
            self.wake()

    def partitions_for_topic(self, topic):
        """Stand for the cluster's metadata, which the assignor looks at."""
        return set(range(self._cluster.widths[topic]))

    def _take(self, assignment):
        consumer = self._consumer
        tps = {TP(topic, n) for topic, numbers in assignment.assignment for n in numbers}
        consumer.assignment, consumer.at, consumer.paused = tps, {}, set()
        self._known_ends.clear()
        self._reassigning = False
        self._assignor.on_assignment(assignment)
        self.park(sorted(tps))

    async def _beat(self):
        group = self._group
        pause = max(0.2, self._session_s / 5)
        while group.member_id:
            await asyncio.sleep(pause)
            who = group.member_id, self._instance, group.generation
            try:
                code = await self._consumer._client.ask(
                    "Heartbeat", lambda who=who: self._cluster.group.heartbeat(*who)
                )
            except RequestTimedOutError:
                continue
            self._refused(code)

    def _reset_generation(self):
        self._group.generation, self._group.member_id = -1, ""
        self._rejoin.set()

    async def _stop_heart(self):
        heart, self._heart = self._heart, None
        if heart is not None and not heart.done():
            heart.cancel()
            await asyncio.wait([heart])

    async def close(self):
        """Leave the group, once what is under way has ended."""
        if self._consumer is None or self._closing:
            return
        self._closing = True
        self._silence()
        self._rejoin.set()
        if self._routine is not None:
            await asyncio.wait([self._routine])
        await self._stop_heart()
        name = self._group.member_id
        if self._group.generation > 0:
            with contextlib.suppress(RequestTimedOutError):
                await self._consumer._client.ask(
                    "LeaveGroup", lambda: self._cluster.group.leave(name)
                )
        self._group.generation, self._group.member_id = -1, ""

    # -- records -----------------------------------------------------------------------------

    async def poll(self, timeout_ms, *, full):
        """Return what has come; wait up to ``timeout_ms`` for something to come."""
        if self.fenced:
            raise ConfigError("another worker has joined under this one's name")
        batches = self._drain(full)
        if batches or self._awake or timeout_ms == 0:
            self._awake = False
            return batches
        self._waiter = self._loop.create_future()
        await asyncio.wait([self._waiter], timeout=timeout_ms / 1000)
        self._waiter.cancel()
        self._waiter = None
        self._awake = False
        return self._drain(full)

    def tell(self, tp):
        """Records of a partition have come to the cluster: a fetch brings them soon."""
        if self._waiter is not None and not self._told and tp in (self._consumer.assignment or ()):
            self._told = True
            self._loop.later(self._cluster.random.uniform(0.0005, 0.01), self._fetched)

    def _fetched(self):
        self._told = False
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _drain(self, full):
        consumer = self._consumer
        if self._reassigning or not consumer.assignment:
            return []
        if self._cluster.faults.refuse_fetch():
            raise BrokerError("a fetch was refused")
        batches = []
        random = self._cluster.random
        partitions, known, paused = self._cluster.partitions, self._known_ends, consumer.paused
        for tp, start in consumer.at.items():
            log = partitions[tp]
            if tp in paused or (start < log.stable and random.random() < 0.1):
                continue
            if start < log.first:
                if batches or tp in full or not self._is_told_again(tp):
                    continue
                self._cluster.faults.fired["position gone"] += 1
                raise InputLost(tp, f"{tp}: {start} is not in the topic any more")
            known[tp] = log.stable
            if start < log.stable and tp not in full:
                batch = batch_of(tp, log, start, start + random.randint(1, 40))
                batches.append(batch)
                consumer.at[tp] = batch.next_offset
        return batches

    def _is_told_again(self, tp):
        """Say whether an error has come with a fetch: each takes a while."""
        now, last = self._loop.time(), self._told_gone.get(tp, -1)
        if now - last < FETCH_S:
            return False
        self._told_gone[tp] = now
        return True

    def end(self, tp):
        """Return the end as the last fetch saw it."""
        return self._known_ends.get(tp)


def batch_of(tp, log, start, stop):
    """Return what a fetch brings: committed records in [start, stop), up to the stable offset."""
    batch = Batch(tp, min(stop, log.stable))
    for offset, (key, value, timestamp, headers) in log.fetch(start, stop):
        batch.offsets.append(offset)
        batch.keys.append(key)
        batch.values.append(value)
        batch.timestamps.append(timestamp)
        batch.headers.append(headers)
    return batch


class SimulatedLog:
    """Reading by hand, with the steps of :mod:`engine.kafka.log`."""

    def __init__(self, cluster, process):
        self._cluster = cluster
        self._client = Client(cluster, process)

    async def bounds(self, tps, *, stable=False):
        if not tps:
            return {}
        logs = self._cluster.partitions
        try:
            first = await self._client.ask(
                "ListOffsets", lambda: {tp: logs[tp].first for tp in tps}
            )
            last = await self._client.ask(
                "ListOffsets",
                lambda: {tp: logs[tp].stable if stable else len(logs[tp]) for tp in tps},
            )
        except RequestTimedOutError as error:
            raise BrokerError(f"could not read the bounds of the topics: {error!r}") from error
        return {tp: (first[tp], last[tp]) for tp in tps}

    async def read(self, spans):
        random, loop = self._cluster.random, self._cluster.loop
        at = {tp: start for tp, (start, end) in spans.items() if start < end}
        waited_until = loop.time() + STALLED_S
        while at:
            await asyncio.sleep(random.uniform(0.001, 0.004))
            ready = [tp for tp, start in at.items() if self._cluster.partitions[tp].stable > start]
            if not ready:
                if loop.time() > waited_until:
                    raise BrokerError(f"{sorted(at)}: no committed records for {STALLED_S:.0f} s")
                await asyncio.sleep(0.02)
                continue
            tp = random.choice(ready)
            end = spans[tp][1]
            log = self._cluster.partitions[tp]
            if at[tp] < log.first:
                raise BrokerError(f"{tp}: {at[tp]} is not in the topic any more")
            batch = batch_of(tp, log, at[tp], at[tp] + random.randint(1, 80)).before(end)
            at[tp] = batch.next_offset
            if at[tp] >= end:
                del at[tp]
            waited_until = loop.time() + STALLED_S
            yield batch

    async def close(self):
        """There is no connection."""


class SimulatedAdmin:
    """The topics."""

    def __init__(self, cluster, process):
        self._cluster = cluster
        self._client = Client(cluster, process)

    async def partitions(self, topics):
        widths = self._cluster.widths
        return await self._ask(lambda: {name: widths[name] for name in topics if name in widths})

    async def topic_ids(self, topics):
        return await self._ask(lambda: {name: f"id of {name}" for name in topics})

    async def create(self, topics):
        wanted = list(topics)
        return await self._ask(lambda: [self._create(topic) for topic in wanted])

    async def _ask(self, work):
        try:
            return await self._client.ask("Admin", work)
        except RequestTimedOutError as error:
            raise BrokerError("the cluster does not answer") from error

    def _create(self, topic):
        self._cluster.create(topic.name, topic.config.partitions or self._cluster.default_width)
        return topic.name

    async def close(self):
        """There is no connection."""


class Disk:
    """A worker's state directory: what survives it."""

    def __init__(self, name):
        self.name = name
        self.stores = {}
        self.open = set()

    def lose(self):
        """Be replaced by an empty one."""
        self.stores.clear()


class SimulatedStore(MemoryStore):
    """A store on a disk: one opener at a time, and a write is done or not done."""

    def __init__(self, disk, task, faults, process):
        if task in disk.open:
            raise StoreLocked(f"{disk.name}/{task}")
        disk.open.add(task)
        super().__init__()
        self._families = disk.stores.setdefault(task, {})
        self._disk, self._task = disk, task
        self._faults, self._process = faults, process
        self._closed = False
        self.path = Path(disk.name) / task

    def get(self, family, key):
        assert not self._closed, "a closed store was read"
        return super().get(family, key)

    def scan(self, family, start=b"", end=None, limit=None):
        assert not self._closed, "a closed store was read"
        return super().scan(family, start, end, limit)

    def write(self, changes):
        assert not self._closed, "a closed store was written"
        changes = {family: list(rows) for family, rows in changes.items()}
        if self._faults.over or not self._process.alive:
            raise Killed
        self._faults.point(self._process, "before the store's write")
        self._faults.fail_write(self.path)
        super().write(changes)
        self._faults.point(self._process, "after the store's write")
        self._faults.write_slowly(self._process)

    def close(self):
        if not self._closed:
            self._closed = True
            self._disk.open.discard(self._task)


def simulated_edges(config, parts, cluster, process, disk):
    """Return the edges of a worker."""
    clock = SimulatedClock(cluster.loop)
    process.on_kill.append(disk.open.clear)
    numbers = {part.name: number for number, part in enumerate(parts)}
    kept = (task.rpartition("_") for task in disk.stores)
    assignor = assignor_for(
        (Group(tuple(t.name for t in part.inputs), stateful=bool(part.tables)) for part in parts),
        replicas=config.standby_replicas,
        kept=[(numbers[part], int(number)) for part, _, number in kept],
    )
    if config.producers == "task":
        outlet = SimulatedTaskOutlets(config, clock, cluster, process)
    else:
        outlet = SimulatedOutlet(config, f"{config.id}-{disk.name}", clock, cluster, process)
    return Edges(
        clock=clock,
        source=SimulatedSource(config, assignor, disk.name, cluster, process),
        outlet=outlet,
        log=SimulatedLog(cluster, process),
        admin=SimulatedAdmin(cluster, process),
        open_store=lambda task, _: SimulatedStore(disk, task, cluster.faults, process),
    )
