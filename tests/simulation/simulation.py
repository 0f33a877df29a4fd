"""One run: workers, input, faults, calm, drain, and what must hold then. All from one seed."""

import asyncio
import gc
import json
from hashlib import sha256
from random import Random

from engine import crashpoint
from engine.errors import BrokerError, ConfigError
from engine.loop import Engine
from engine.partitioner import partitioner_for
from engine.policy import policy_of
from engine.record import TP
from tests.simulation import job
from tests.simulation.faults import Faults, draw_events
from tests.simulation.invariants import Violation, check
from tests.simulation.simulated_edges import WALL_MS, Disk, simulated_edges
from tests.simulation.simulated_kafka import Cluster
from tests.simulation.simulated_loop import Deadlock, Process, SimulatedLoop

DRAIN_S = 120.0
SESSION_MS = 3000
END_MARK = (("headrace.end-of-input", b""),)
BETWEEN = "sim-move-bucket-repartition"


class Worker:
    """One process of the app."""

    def __init__(self, process, disk):
        self.process = process
        self.disk = disk
        self.engine = None
        self.task = None
        self.leaving = False
        self.ended = False
        self.loses_disk = False


class Simulation:
    """See the module.

    Args:
        say: also called with each line of the trace, when it happens.
        under: the parts of the weather that are not the seed's.
    """

    def __init__(self, seed, *, say=None, under=None):
        self.seed = seed
        self.job = job
        self.random = random = Random(f"run {seed}")
        self.loop = SimulatedLoop(seed)
        self.faults = Faults(seed, self.loop, under or {})
        self.cluster = Cluster(self.loop, self.faults, say)
        self.width = random.choice((3, 4))
        self.clicks = random.randint(60, 260)
        self.duration_s = random.uniform(4, 12)
        self.ends = random.random() < 0.5
        self.refuses_large = random.random() < 0.3
        self.on_refusal = random.choice(("dead_letter", "skip"))
        self.slowness_s = random.choice((0.03, 0.03, 0.03, 0.03, 0.4, 0.4, 2.0, 25.0))
        self.config = job.app.settings(
            commit_interval_ms=random.choice((30, 100, 100, 300)),
            transaction_timeout_ms=4000,
            session_timeout_ms=SESSION_MS,
            compression="none",
            producers=random.choice(("worker", "worker", "task")),
            standby_replicas=random.choice((0, 0, 1)),
            collect_after=0,
            stall_ms=0,  # its thread goes by real time
            end_marks=True,
            inbox_records=random.choice((20, 20_000)),
            outbox_records=random.choice((30, 50_000)),
        )
        self.workers = []
        self.disks = []
        self.partition_of = {}
        self.bucket_counts = {}
        self.deaths = []
        self.pending = 0  # workers that are to come back
        self.made = 0

    # -- what the invariants ask -------------------------------------------------------------

    @staticmethod
    def tp(topic, number):
        return TP(topic, number)

    def inputs(self):
        return [TP(topic, n) for topic in ("clicks", "users", BETWEEN) for n in range(self.width)]

    # -- the run -----------------------------------------------------------------------------

    def run(self):
        """Run it all; return the trace.

        Raises:
            Violation: an invariant does not hold.
        """
        gc.disable()  # it would end coroutines at moments that are no seed's
        job.attempts.clear()
        job.slowness = self.slowness_s
        job.large.policy = policy_of(self.on_refusal)
        asyncio.set_event_loop(self.loop)
        crashpoint._armed = self.faults
        try:
            try:
                self.loop.run_until_complete(self._direct())
            except Deadlock as error:
                raise Violation("I8", str(error)) from None
            self._check_deaths()
            check(self)
        finally:
            self.faults.over = True
            self.loop.bury([worker.process for worker in self.workers])
            asyncio.set_event_loop(None)
            self.loop.close()
            crashpoint._armed = None
            gc.enable()
        return self.cluster.events

    async def _direct(self):
        loop, random = self.loop, self.random
        self.cluster.default_width = self.width
        for topic in ("clicks", "users"):
            self.cluster.create(topic, self.width)
        if self.refuses_large:
            self.cluster.batch_bytes["large-out"] = job.LARGE_BYTES
        self._produce_users(0)
        for _ in range(random.randint(2, 3)):
            self._start()
        kinds = self.faults.weather.kinds
        events = draw_events(random, kinds, self.duration_s, SESSION_MS / 1000)
        for event in events:
            loop.later(event.at_s, self._befall, event)
        feeding = asyncio.create_task(self._feed())
        await asyncio.sleep(self.duration_s)
        await feeding
        self.faults.end()
        for worker in self.workers:
            worker.process.kill_in = worker.process.freeze_in = -1
            worker.loses_disk = False
        await self._drain()
        if self.ends:
            for number in range(self.width):
                self._produce(TP("clicks", number), None, None, END_MARK)
            await self._drain()
        await self._stop()

    async def _feed(self):
        """Bring the input, in lumps."""
        random = self.random
        at = 0
        pause = self.duration_s / self.clicks
        while at < self.clicks:
            for _ in range(random.choice((1, 1, 2, 5, 12))):
                self._click(at)
                at += 1
            if random.random() < 0.1:
                self._produce_users(at)
            await asyncio.sleep(random.expovariate(1 / (3 * pause)))
        self.clicks = at

    def _click(self, number):
        random = self.random
        user = f"user-{random.randrange(9)}"
        value = {"id": number, "user": user, "amount": random.randrange(100)}
        raw = json.dumps(value).encode()
        if random.random() < 0.05:
            raw = random.choice((b"broken", b'{"id": 1}', b"", raw.replace(b'"amount"', b'"a"')))
        tp = TP("clicks", partitioner_for(self.width)[user.encode()])
        self.partition_of[number] = tp.partition
        late = random.choice((0, 0, 0, random.randrange(300), random.randrange(1500)))
        self._produce(tp, user.encode(), raw, (), late)

    def _produce_users(self, version):
        for number in range(9):
            user = f"user-{number}".encode()
            if version == 0 or self.random.random() < 0.3:
                tp = TP("users", partitioner_for(self.width)[user])
                self._produce(tp, user, b'{"v": %d}' % version)

    def _produce(self, tp, key, value, headers=(), late_ms=0):
        now_ms = WALL_MS + int(self.loop.time() * 1000)
        self.cluster.produce(tp, (key, value, now_ms - late_ms, headers))

    # -- workers -----------------------------------------------------------------------------

    def _start(self):
        """Start a worker on a state directory that nobody uses."""
        used = {worker.disk for worker in self.workers if not worker.ended}
        disk = next((disk for disk in self.disks if disk not in used), None)
        if disk is None:
            disk = Disk(f"disk-{len(self.disks)}")
            self.disks.append(disk)
        self.made += 1
        process = Process(f"w{self.made}")
        worker = Worker(process, disk)
        self.workers.append(worker)
        topology = job.app.topology()
        edges = simulated_edges(self.config, topology.parts, self.cluster, process, disk)
        process.leave = lambda: self._leave(worker)
        process.kill_in = self.faults.callbacks_to_live()
        process.on_kill.append(lambda: self._ended(worker))
        self.cluster.say("start", process.name, disk.name)
        worker.task = self.loop.spawn(process, self._work(worker, topology, edges), process.name)

    def _come_back(self):
        self.pending -= 1
        self._start()

    async def _work(self, worker, topology, edges):
        worker.engine = Engine(self.config, topology, edges)
        try:
            await worker.engine.run()
        except BrokerError as error:  # a worker that finds no broker at its start says so and ends
            if edges.source.started:
                self.deaths.append((worker.process.name, error))
            self.cluster.say("found no broker", worker.process.name)
        except ConfigError as error:
            if not (edges.source.fenced and worker.disk.name in self.cluster.group.forgotten):
                self.deaths.append((worker.process.name, error))
            self.cluster.say("fenced by a move", worker.process.name)
        except Exception as error:  # noqa: BLE001  whatever it is, it is looked at
            self.deaths.append((worker.process.name, error))
        worker.process.kill()

    def _ended(self, worker):
        """A worker is gone: killed, dead, or it has left. Another takes its place."""
        worker.ended = True
        if worker.loses_disk:
            worker.disk.lose()
        self.cluster.say("ended", worker.process.name)
        if not worker.leaving:
            self._come_later(self.faults.random.uniform(0.1, 2.5))

    def _come_later(self, delay_s):
        self.pending += 1
        self.loop.later(delay_s, self._come_back)

    def _live(self):
        return [worker for worker in self.workers if not worker.ended and not worker.leaving]

    def _befall(self, event):
        """Do what the seed says."""
        if event.what != "retention":
            self.faults.fired[event.what] += 1
        match event.what:
            case "move group":
                self.cluster.group.move(event.for_s / 4)
            case "move transactions":
                self.cluster.move(event.for_s / 4)
            case "retention":
                self._retain()
            case _:
                self._befall_worker(event)

    def _befall_worker(self, event):
        live = self._live()
        if event.what == "join":
            if len(live) < 4:
                self._start()
            return
        if not live:
            return
        worker = live[event.who % len(live)]
        process = worker.process
        self.cluster.say(event.what, process.name)
        match event.what:
            case "kill":
                process.kill_in = event.after
                worker.loses_disk = event.loses_disk
            case "freeze":
                process.freeze_in = event.after
                process.freeze_for = event.for_s
                if self.faults.random.random() < 0.5:  # what it was about to read is gone then
                    self.loop.later(event.for_s * 0.98, self._retain)
            case "leave" if len(live) > 1:
                self._leave(worker)

    def _retain(self):
        self.faults.fired["retention"] += 1
        self.cluster.retain()

    def _leave(self, worker):
        """Ask a worker to end; another one comes if few are left."""
        if worker.engine is not None and not worker.leaving:
            worker.leaving = True
            worker.engine.stop()
            if len(self._live()) < 2:
                self._come_later(self.faults.random.uniform(0.1, 3))

    # -- the end -----------------------------------------------------------------------------

    async def _drain(self):
        """Wait until everything is done."""
        until = self.loop.time() + DRAIN_S + 30 * self.slowness_s
        while not self._is_drained():
            self._check_deaths()
            if self.loop.time() > until:
                raise Violation("I8", f"not done after {DRAIN_S:.0f} s: {self._what_is_left()}")
            await asyncio.sleep(0.1)

    def _is_drained(self):
        if self.pending or not self._live() or self.cluster.hanging():
            return False
        return not self._what_is_left()

    def _what_is_left(self):
        group = self.cluster.group
        left = []
        for tp in self.inputs():
            log = self.cluster.partitions.get(tp)
            at = group.committed.get(tp)
            if log is None or log.readable(0 if at is None else at.offset):
                left.append(f"{tp} at {None if at is None else at.offset}")
        return left

    async def _settle(self):
        """Wait until every task is at home, and note where: those stores are looked at."""
        until = self.loop.time() + 60
        while not self._is_settled():
            self._check_deaths()
            if self.loop.time() > until:
                raise Violation("I8", "tasks do not come up: " + self.loop.waiting())
            await asyncio.sleep(0.1)
        group = self.cluster.group
        self.owners = {
            tp: next(disk for disk in self.disks if disk.name == instance)
            for tp, instance in group.owners[group.generation].items()
        }

    def _is_settled(self):
        tasks = 0
        if self.pending:
            return False
        for worker in self._live():
            engine = worker.engine
            if engine is None or worker.process.frozen or not engine.ready.is_set():
                return False
            if engine._assigned is not None or engine.assignment.coming:
                return False
            if engine.assignment._membership.generation != self.cluster.group.generation:
                return False
            if engine.checkpoint.in_flight:
                return False
            tasks += len(engine.assignment.working())
        return tasks == 2 * self.width and self.cluster.group.state == "stable"

    async def _stop(self):
        """Let all workers leave; those that were to come back have come."""
        await self._settle()
        for worker in self._live():
            worker.leaving = True
            worker.engine.stop()
        until = self.loop.time() + 60
        while self.cluster.hanging() or any(not worker.ended for worker in self.workers):
            if self.loop.time() > until:
                left = [w.process for w in self.workers if not w.ended], self.cluster.hanging()
                raise Violation("I8", f"workers do not stop: {left} {self.loop.waiting()}")
            await asyncio.sleep(0.1)

    def digest(self):
        """Return a hash of all that the run has come to: every record, and every step."""
        seen = sha256()
        for tp, log in sorted(self.cluster.partitions.items()):
            seen.update(repr((tp, log.first, log.rows, log.states)).encode())
        seen.update(repr((self.loop.turns, self.loop.time(), self.cluster.events)).encode())
        return seen.hexdigest()

    def _check_deaths(self):
        if self.deaths:
            name, error = self.deaths[0]
            raise Violation("I9", f"{name} died of {error!r}") from error
        if self.loop.errors:
            raise Violation("I9", f"nobody looked at {self.loop.errors[0]}")


def trace_text(events):
    """Return a trace, a line an event."""
    return "\n".join(" ".join(map(str, event)) for event in events)
