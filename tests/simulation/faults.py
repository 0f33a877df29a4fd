"""What goes wrong in a simulated run, and when: drawn from the seed, and counted."""

from collections import Counter
from random import Random
from typing import NamedTuple

from engine import crashpoint
from engine.kafka import protocol
from tables.errors import StoreCorrupted, StoreFailed
from tests.simulation.simulated_loop import PROCESS, Killed

TOPIC_AUTHORIZATION_FAILED = 29

DEEDS_MAX = 12
"""How often something may be done to the workers of a run at points of their own code."""
NEVER = -1

REQUESTS = (
    "InitProducerId", "AddPartitionsToTxn", "AddOffsetsToTxn", "Produce", "TxnOffsetCommit",
    "EndTxn", "FindCoordinator", "OffsetFetch", "ListOffsets", "JoinGroup",
    "SyncGroup", "Heartbeat", "Admin",
)  # fmt: skip
POINTS = (
    "before the store's write", "after the store's write",
    *(f"{when} {what}" for when in ("before", "after") for what in REQUESTS),
    *(name for name in crashpoint.POINTS if not name.endswith("-sent")),  # those are requests
)  # fmt: skip
"""Where something is done to workers: at writes, requests, and where the engine names a place."""


class Fate(NamedTuple):
    """What becomes of one request and its answer. Delays in seconds."""

    request_s: float
    answer_s: float
    request_lost: bool = False
    answer_lost: bool = False


class Weather(NamedTuple):
    """How bad a run is: probabilities a request, a write, or a named point.

    Attributes:
        kill_after: a worker dies after some so many callbacks: at any await. 0: never.
        point, point_rate, deed: where something is often done to workers, how often, and what:
            kill, freeze, leave.
        cursed_lost, cursed_slow: a kind of request that is often lost, or slow; and how often.
        kinds: what is done to workers and to the cluster.
    """

    slow: float = 0
    lost: float = 0
    answer_lost: float = 0
    request_refused: float = 0
    batch_refused: float = 0
    batch_denied: float = 0
    point_kill: float = 0
    slow_write: float = 0
    disk_full: float = 0
    corrupt: float = 0
    late_marker: float = 0
    fetch_refused: float = 0
    kill_after: int = 0
    point: str = ""
    point_rate: float = 0.2
    deed: str = "kill"
    cursed_lost: str = ""
    cursed_slow: str = ""
    cursed_rate: float = 0.3
    kinds: tuple[str, ...] = ()


class Event(NamedTuple):
    """Something that is done to a worker, or to the cluster."""

    at_s: float
    what: str  # kill, freeze, join, leave; move group, move transactions, retention
    who: int
    after: int  # so many callbacks later: in the middle of anything
    for_s: float
    loses_disk: bool


MIXED = ("kill", "kill", "freeze", "freeze", "join", "leave", "move group",
         "move transactions", "retention")  # fmt: skip
STORM = ("join", "leave", "join", "leave", "kill", "move group")

CALM = Weather()


def draw_weather(random):
    """Return the weather of a run; each kind of fault is absent from many runs."""

    def maybe(most):
        return random.choice((0, 0, most / 4, most))

    return Weather(
        slow=maybe(0.06),
        lost=maybe(0.02),
        answer_lost=maybe(0.03),
        request_refused=random.choice((0, 0, 0.01, 0.05, 0.05, 0.3)),
        batch_refused=maybe(0.15),
        batch_denied=maybe(0.01),
        point_kill=maybe(0.02),
        slow_write=maybe(0.02),
        disk_full=maybe(0.03),
        corrupt=maybe(0.02),
        late_marker=maybe(0.15),
        fetch_refused=maybe(0.01),
        kill_after=random.choice((0, 0, 0, 0, 400, 1500, 4000)),
        point=random.choice(("", random.choice(POINTS))),
        deed=random.choice(("kill", "kill", "freeze", "leave")),
        cursed_lost=random.choice(("", "", random.choice(REQUESTS))),
        cursed_slow=random.choice(("", "", random.choice(REQUESTS))),
        kinds=random.choice((MIXED, MIXED, MIXED, MIXED, STORM)),
    )


def draw_events(random, kinds, duration_s, session_s):
    """Return what is done, in the order of time.

    What happens in the middle of something else is the worst: half of the events have a second
    one at their heels, which finds a rebalance or a recovery under way.
    """

    def draw(at_s):
        return Event(
            at_s=at_s,
            what=random.choice(kinds),
            who=random.randrange(4),
            after=random.choice((0, random.randrange(40), random.randrange(400))),
            for_s=random.choice((0.3, 0.8, 1.3, 2.2, 3.5)) * session_s * random.uniform(0.5, 1),
            loses_disk=random.random() < 0.3,
        )

    events = []
    for _ in range(random.randint(4, 8) if kinds is not MIXED else random.randint(0, 5)):
        event = draw(random.uniform(0.2, duration_s))
        events.append(event)
        if random.random() < 0.5:
            heels = random.choice((0.02, 0.1, 0.5, 3.2)) * random.random()
            events.append(draw(min(event.at_s + heels, duration_s)))
    return sorted(events)


class Faults:
    """Decides about each request, write and point.

    Attributes:
        fired: how often each kind of fault has happened.
        done_at: how often something was done at each point.
    """

    def __init__(self, seed, loop, under):
        self.random = Random(f"faults {seed}")
        self.weather = draw_weather(Random(f"weather {seed}"))._replace(**under)
        self.over = False
        self.fired = Counter()
        self.done_at = Counter()
        self._deeds = 0
        self._loop = loop

    def end(self):
        """From now on everything works."""
        self.weather = CALM

    def _happens(self, chance, what):
        if chance and self.random.random() < chance:
            self.fired[what] += 1
            return True
        return False

    # -- requests ----------------------------------------------------------------------------

    def fate(self, what):
        """Decide about one request."""
        random, weather = self.random, self.weather
        request_s = random.uniform(0.0002, 0.003)
        answer_s = random.uniform(0.0002, 0.003)
        if weather is CALM:
            return Fate(request_s, answer_s)
        rate = weather.cursed_rate if weather.cursed_slow == what else weather.slow
        if self._happens(rate, "request slow"):
            slow = random.choice((0.05, 0.3, 1.2, 2.5)) * random.random()
            if random.random() < 0.5:
                request_s += slow
            else:
                answer_s += slow
        if weather.cursed_lost == what and random.random() < weather.cursed_rate / 2:
            lost = random.choice(("request", "answer"))
        else:
            chance = random.random()
            lost = "request" if chance < weather.lost else "answer"
            lost = lost if chance < weather.lost + weather.answer_lost else ""
        if lost:
            self.fired[f"{lost} lost"] += 1
        return Fate(request_s, answer_s, lost == "request", lost == "answer")

    def refuse_request(self):
        """Return the error code with which a coordinator puts a request off, or 0."""
        if self._happens(self.weather.request_refused, "coordinator not there"):
            return self.random.choice((protocol.COORDINATOR_LOADING, protocol.NOT_COORDINATOR))
        return 0

    def forget_end(self):
        """Say whether a coordinator ends a transaction and moves before it answers."""
        return self._happens(self.weather.request_refused / 2, "EndTxn done, not said so")

    def refuse_batch(self):
        """Return the error code with which a leader refuses a batch, or 0."""
        if self._happens(self.weather.batch_denied, "batch denied"):
            return TOPIC_AUTHORIZATION_FAILED
        if self._happens(self.weather.batch_refused, "leader not there"):
            return self.random.choice((protocol.NOT_LEADER, protocol.REQUEST_TIMED_OUT))
        return 0

    def refuse_fetch(self):
        """Say whether a fetch brings an error that the client does not get over by itself."""
        return self._happens(self.weather.fetch_refused, "fetch refused")

    def forget_batch(self):
        """Say whether a leader takes a batch and answers that it has not."""
        return self._happens(self.weather.batch_refused / 3, "batch taken, not said so")

    def marker_s(self):
        """Return how long one partition waits for its marker."""
        if self._happens(self.weather.late_marker, "marker late"):
            return self.random.choice((0.1, 0.5, 2.0)) * self.random.random()
        return self.random.uniform(0.0002, 0.010)

    # -- workers -----------------------------------------------------------------------------

    def point(self, process, name):
        """Do to a process at a named point what is to be done there, if anything.

        Raises:
            Killed: it is dead; nothing of its code may go on.
        """
        weather = self.weather
        likely = weather.point == name
        chance = weather.point_rate if likely else weather.point_kill
        if self.over or not chance or self._deeds >= DEEDS_MAX or not process.alive:
            return
        deed = weather.deed if likely else "kill"
        if self._happens(chance, f"{deed} at a point"):
            self._deeds += 1
            self.done_at[name] += 1
            match deed:
                case "kill":
                    process.kill()
                    raise Killed(name)
                case "freeze":
                    self._loop.freeze(process, self.random.choice((1.0, 4.0, 9.0)))
                case "leave":
                    process.leave()

    def is_at(self, name):
        """Stand for an armed :mod:`engine.crashpoint`, for the worker whose code asks."""
        if name in POINTS:
            self.point(PROCESS.get(), name)
        return False

    def callbacks_to_live(self):
        """Return after how many callbacks a new worker dies, or ``NEVER``."""
        mean = self.weather.kill_after
        if not mean or self._deeds >= DEEDS_MAX:
            return NEVER
        self._deeds += 1
        return int(self.random.expovariate(1 / mean))

    def fail_write(self, path):
        """Let a store not take a write.

        Raises:
            StoreFailed, StoreCorrupted: at random.
        """
        if self._happens(self.weather.disk_full, "disk full"):
            raise StoreFailed(path, "no space left")
        if self._happens(self.weather.corrupt, "store corrupt"):
            raise StoreCorrupted(path, "a bit has flipped")

    def write_slowly(self, process):
        """Let a write take long: the whole process waits for a disk."""
        if self._happens(self.weather.slow_write, "write slow"):
            self._loop.freeze(process, self.random.choice((0.05, 0.3, 1.5, 4.0)))
