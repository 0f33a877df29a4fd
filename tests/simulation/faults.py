"""What goes wrong in a simulated run, and when: all of it drawn from the seed."""

from random import Random
from typing import NamedTuple

from engine.kafka import protocol
from tests.simulation.simulated_loop import Killed

TOPIC_AUTHORIZATION_FAILED = 29

POINTS = 12
"""How often a run may be killed at a named point."""


class Fate(NamedTuple):
    """What becomes of one request and its answer. Delays in seconds."""

    request_s: float
    answer_s: float
    request_lost: bool = False
    answer_lost: bool = False


class Weather(NamedTuple):
    """How bad a run is: probabilities a request, a write, or a named point."""

    slow: float
    lost: float
    answer_lost: float
    batch_refused: float
    batch_denied: float
    point_kill: float
    slow_write: float
    late_marker: float


class Event(NamedTuple):
    """Something that is done to a worker."""

    at_s: float
    what: str  # kill, freeze, join, leave
    who: int
    after: int  # so many callbacks later: in the middle of anything
    for_s: float
    loses_disk: bool


CALM = Weather(0, 0, 0, 0, 0, 0, 0, 0)


def draw_weather(random):
    """Return the weather of a run; each kind of fault is absent from many runs."""

    def maybe(most):
        return random.choice((0, 0, most / 4, most))

    return Weather(
        slow=maybe(0.06),
        lost=maybe(0.02),
        answer_lost=maybe(0.03),
        batch_refused=maybe(0.15),
        batch_denied=maybe(0.01),
        point_kill=maybe(0.02),
        slow_write=maybe(0.02),
        late_marker=maybe(0.15),
    )


def draw_events(random, duration_s, session_s):
    """Return what is done to workers, in the order of time."""
    storm = random.random() < 0.2
    kinds = ("join", "leave", "join", "leave", "kill") if storm else (
        "kill", "kill", "freeze", "freeze", "join", "leave",
    )  # fmt: skip
    events = [
        Event(
            at_s=random.uniform(0.2, duration_s),
            what=random.choice(kinds),
            who=random.randrange(4),
            after=random.choice((0, random.randrange(40), random.randrange(400))),
            for_s=random.choice((0.3, 0.8, 1.3, 2.2, 3.5)) * session_s * random.uniform(0.5, 1),
            loses_disk=random.random() < 0.3,
        )
        for _ in range(random.randint(6, 12) if storm else random.randint(0, 6))
    ]
    return sorted(events)


class Faults:
    """Decides about each request, write and point."""

    def __init__(self, seed, loop):
        self.random = Random(f"faults {seed}")
        self.weather = draw_weather(Random(f"weather {seed}"))
        self.over = False
        self.killed_at = []
        self._loop = loop

    def end(self):
        """From now on everything works."""
        self.weather = CALM

    def fate(self):
        """Decide about one request."""
        random, weather = self.random, self.weather
        request_s = random.uniform(0.0002, 0.003)
        answer_s = random.uniform(0.0002, 0.003)
        if weather is CALM:
            return Fate(request_s, answer_s)
        if random.random() < weather.slow:
            slow = random.choice((0.05, 0.3, 1.2, 2.5)) * random.random()
            if random.random() < 0.5:
                request_s += slow
            else:
                answer_s += slow
        chance = random.random()
        return Fate(
            request_s,
            answer_s,
            request_lost=chance < weather.lost,
            answer_lost=weather.lost <= chance < weather.lost + weather.answer_lost,
        )

    def refuse_request(self):
        """Return the error code with which a coordinator puts a request off, or 0."""
        if self.random.random() < self.weather.batch_refused / 3:
            return self.random.choice((protocol.COORDINATOR_LOADING, protocol.NOT_COORDINATOR))
        return 0

    def refuse_batch(self):
        """Return the error code with which a leader refuses a batch, or 0."""
        chance = self.random.random()
        if chance < self.weather.batch_denied:
            return TOPIC_AUTHORIZATION_FAILED
        if chance < self.weather.batch_refused:
            return self.random.choice((protocol.NOT_LEADER, protocol.REQUEST_TIMED_OUT))
        return 0

    def forget_batch(self):
        """Say whether a leader takes a batch and answers that it has not."""
        return self.random.random() < self.weather.batch_refused / 3

    def marker_s(self):
        """Return how long one partition waits for its marker."""
        if self.random.random() < self.weather.late_marker:
            return self.random.choice((0.1, 0.5, 2.0)) * self.random.random()
        return self.random.uniform(0.0002, 0.010)

    def point(self, process, name):
        """Kill a process at a named point, if it is to be.

        Raises:
            Killed: it is dead; nothing of its code may go on.
        """
        if self.over or not self.weather.point_kill or len(self.killed_at) >= POINTS:
            return
        if process.alive and self.random.random() < self.weather.point_kill:
            self.killed_at.append(name)
            process.kill()
            raise Killed(name)

    def write_slowly(self, process):
        """Let a write take long: the whole process waits for a disk."""
        if self.weather.slow_write and self.random.random() < self.weather.slow_write:
            self._loop.freeze(process, self.random.choice((0.05, 0.3, 1.5, 4.0)))
