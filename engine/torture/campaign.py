"""The course of a campaign: feed, disturb, drain, stop, judge. :meth:`Campaign.run` has the steps.

Everything random follows from the seed: who is hit, when, for how long, and whether a worker comes
back on its old directory. When a fault hits in the life of a transaction does not, which is why one
runs many.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Literal, NamedTuple

from engine.errors import BrokerError
from engine.torture import audit, grouplog, history, observer
from engine.torture.grouplog import OFFSETS_TOPIC, Commit, GroupLog
from engine.torture.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from engine.clock import Clock
    from engine.devbroker import DevBroker
    from engine.torture.checker import Job
    from engine.torture.fleet import Fleet, Worker
    from engine.torture.history import Kill, Recovery

Fault = Literal["kill", "stop", "term", "broker"]
Keyed = tuple[bytes | None, bytes | None, int]
"""A record before it has a partition: key, value, timestamp (ms)."""

TICK_S = 0.1
LOOK_S = 0.5
STALLED_S = 90.0
DOUBLE_SHARE = 0.15
"""So often two workers are hit at once."""
FRESH_SHARE = 0.1
"""So often a killed worker comes back on an empty directory."""
LATE_SHARE = 0.4
"""So often it comes back when the group may have given its partitions to others."""


class Plan(NamedTuple):
    """What was asked for.

    Attributes:
        rate: events a second.
        gap_s: between two faults: from, to.
    """

    kills: int
    replicas: int
    partitions: int
    rate: int
    seed: int
    session_timeout_s: float
    gap_s: tuple[float, float]
    faults: tuple[Fault, ...]


class Progress(NamedTuple):
    """How far a campaign is.

    Attributes:
        recovery_s: the last one that was measured.
    """

    phase: str
    kills: int
    faults: int
    sent: int
    done: int
    recovery_s: float | None


class Outcome(NamedTuple):
    """What came of it."""

    kills: int
    faults: int
    verdict: Verdict
    recoveries: list[Recovery]


class Campaign:
    """One campaign on a broker that has the job's input topics, empty, and its profiles.

    Args:
        events: without an end.
        broker: the one of our own, for faults of its; None where it is somebody else's.
        show: is told how far it is, twice a second.
    """

    def __init__(  # noqa: PLR0913
        self,
        plan: Plan,
        job: Job,
        bootstrap: str,
        fleet: Fleet,
        events: Iterator[Keyed],
        *,
        broker: DevBroker | None,
        clock: Clock,
        show: Callable[[Progress], None],
    ) -> None:
        self._plan = plan
        self._job = job
        self._bootstrap = bootstrap
        self._fleet = fleet
        self._events = events
        self._broker = broker
        self._clock = clock
        self._show = show
        self._rng = random.Random(plan.seed)  # noqa: S311  (meant to be repeatable)
        self._log = GroupLog()
        self._latest: dict[int, Commit] = {}  # by partition of the input
        self._kills: list[Kill] = []
        self._recovery_s: float | None = None
        self._faults = 0
        self._sent = 0
        self._phase = "starting"
        self._fed = asyncio.Event()
        self._verdict = Verdict()

    async def run(self) -> Outcome:
        """Do it all.

        Raises:
            BrokerError: nothing goes on any more, so there is nothing to judge.
        """
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(work) for work in (self._watch(), self._feed(), self._course())]
        watching, feeding, course = tasks
        try:
            while not course.done():
                await asyncio.wait([watching, course], return_when=asyncio.FIRST_COMPLETED)
                if watching.done():
                    watching.result()
            course.result()
            feeding.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        return await self._judge()

    async def _course(self) -> None:
        """Everything that happens to the workers, from their start to their end."""
        for _ in range(self._plan.replicas):
            self._fleet.add()
        await self._until(lambda: self._moved_since(0), "to begin")
        self._phase = "faults"
        await self._disturb()
        self._phase = "recovering"
        at_ms = self._clock.now_ms()
        await self._until(lambda: self._moved_since(at_ms), "to recover from the last fault")
        self._phase = "draining"
        await self._until(self._fed.is_set, "to be fed")
        topic = self._job.topic("raw-events")
        ends = await observer.ends(
            self._bootstrap, [(topic, number) for number in range(self._plan.partitions)]
        )
        held = sum(end.high for end in ends.values())
        await self._until(lambda: self._done() >= held, "to work off its input")
        self._phase = "stopping"
        wrong = await asyncio.to_thread(self._fleet.stop_all)
        self._verdict.add("I8", "workers that did not stop in good order", wrong)

    # -- input -------------------------------------------------------------------------------

    async def _feed(self) -> None:
        """Send events at a steady rate until the faults are over and recovered from."""
        topic = self._job.topic("raw-events")
        began = self._clock.elapsed_ms()
        async with observer.feeding(self._bootstrap, topic, self._plan.partitions) as feed:
            while self._phase in {"starting", "faults", "recovering"}:
                due = int((self._clock.elapsed_ms() - began) / 1000 * self._plan.rate)
                batch = [next(self._events) for _ in range(due - self._sent)]
                self._sent = due
                await feed.send(batch)
                await asyncio.sleep(TICK_S)
        self._fed.set()

    # -- faults ------------------------------------------------------------------------------

    async def _disturb(self) -> None:
        plan, rng = self._plan, self._rng
        left = plan.kills
        async with asyncio.TaskGroup() as repairs:
            while left > 0:
                await asyncio.sleep(rng.uniform(*plan.gap_s))
                fault = rng.choice(plan.faults)
                count = 2 if rng.random() < DOUBLE_SHARE else 1
                if fault == "broker":
                    assert self._broker is not None
                    self._faults += 1
                    left -= "kill" not in plan.faults
                    await asyncio.to_thread(self._broker.restart)
                    continue
                up = [worker for worker in self._fleet.workers if not worker.hit]
                for worker in rng.sample(up, min(count, len(up), left)):
                    self._faults += 1
                    left -= fault == "kill" or "kill" not in plan.faults
                    repairs.create_task(self._hit(worker, fault, rng.random(), rng.random()))

    async def _hit(self, worker: Worker, fault: Fault, how: float, how_long: float) -> None:
        """Do something to a worker and make it good again; two random numbers say how."""
        session_s = self._plan.session_timeout_s
        worker.hit = True
        if fault == "kill":
            self._kills.append(self._fleet.kill(worker))
            await asyncio.sleep(how_long * (2 * session_s if how < LATE_SHARE else 1))
            self._fleet.start(worker, fresh=how > 1 - FRESH_SHARE)
        elif fault == "stop":
            self._fleet.freeze(worker)
            await asyncio.sleep(session_s * (1.2 + how_long))
            self._fleet.freeze(worker, thaw=True)
        else:
            code = await asyncio.to_thread(self._fleet.stop, worker)
            if code:
                self._verdict.add("I8", "workers that did not stop in good order", [worker.name])
            await asyncio.sleep(how_long * session_s)
            self._fleet.start(worker)
        worker.hit = False

    # -- looking -----------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Follow the group's log, tend and measure the workers, and show how far all is.

        Raises:
            BrokerError: nothing was committed for long although there is input.
        """
        while OFFSETS_TOPIC not in (widths := await self._widths()):
            await asyncio.sleep(LOOK_S)  # the first group of the cluster's is on its way
        number = grouplog.partition_of(self._job.app, widths[OFFSETS_TOPIC])
        moved_ms = self._clock.elapsed_ms()
        async with observer.following(self._bootstrap, OFFSETS_TOPIC, [number]) as tail:
            while True:
                before = self._done()
                await self._look(tail)
                now = self._clock.elapsed_ms()
                if self._done() != before or self._done() >= self._sent:
                    moved_ms = now
                elif now - moved_ms > STALLED_S * 1000:
                    raise BrokerError(f"nothing was committed for {STALLED_S:g} s at "
                                      f"{self._done():,} of {self._sent:,} events")  # fmt: skip
                await asyncio.sleep(LOOK_S)

    async def _widths(self) -> dict[str, int]:
        return await observer.widths(self._bootstrap, [OFFSETS_TOPIC])

    async def _look(self, tail: observer.Tail) -> None:
        try:
            found = grouplog.read(self._job.app, (await tail.more()).topics[OFFSETS_TOPIC])
        except observer.UNREACHABLE:  # a broker that is being started again
            return
        self._log.commits += found.commits
        self._log.generations += found.generations
        topic = self._job.topic("raw-events")
        self._latest |= {c.place[1]: c for c in found.commits if c.place[0] == topic}
        for kill in reversed(self._kills):
            measured = history.recoveries(self._log, [kill], Verdict())
            if measured:
                self._recovery_s = max(recovery.seconds for recovery in measured)
                break
        for worker in self._fleet.ended() if self._phase != "stopping" else ():
            assert worker.child is not None
            where = f"{worker.name} (exit status {worker.child.exit_code})"
            # started while the broker was away, a worker ends and says so
            if "broker" not in self._plan.faults or b"is at work" in self._fleet.log_of(worker):
                self._verdict.add("I8", "workers that ended by themselves", [where])
            self._fleet.start(worker)
        self._fleet.measure()
        self._show(
            Progress(self._phase, len(self._kills), self._faults, self._sent, self._done(),
                     self._recovery_s)
        )  # fmt: skip

    def _done(self) -> int:
        return sum(commit.offset for commit in self._latest.values())

    def _moved_since(self, at_ms: float) -> bool:
        """Say whether every partition of the input was committed since, and all are at work."""
        every = len(self._latest) == self._plan.partitions
        up = all(map(self._fleet.at_work, self._fleet.workers))
        return every and up and all(c.when_ms > at_ms for c in self._latest.values())

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        try:
            async with asyncio.timeout(2 * STALLED_S):
                while not condition():
                    await asyncio.sleep(TICK_S)
        except TimeoutError as error:
            raise BrokerError(
                f"the job took longer than {2 * STALLED_S:g} s {what} "
                f"({self._done():,} of {self._sent:,} events are committed)"
            ) from error

    # -- the end -----------------------------------------------------------------------------

    async def _judge(self) -> Outcome:
        verdict = self._verdict
        verdict.merge(await audit.audit(self._bootstrap, self._job, self._fleet.homes))
        # More may be there: a broker forgets an idempotent producer whose records' timestamps are
        # older than producer.id.expiration.ms (a day) when it is started again, and then takes a
        # batch that is sent again for a new one. The input is judged as it is.
        if verdict.events < self._sent:
            what = f"the input has {verdict.events:,} events, but {self._sent:,} were sent"
            raise BrokerError(f"{what}: the broker has lost what it had acknowledged")
        log = await audit.group_log(self._bootstrap, self._job.app)
        found = history.recoveries(log, self._kills, verdict)
        history.check_gauges(self._fleet.gauges, verdict)
        return Outcome(len(self._kills), self._faults, verdict, found)
