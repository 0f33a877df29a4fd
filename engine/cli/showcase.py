"""The demo's course: broker, topics, profiles, workers, events, the wait, the count.

:meth:`Showcase.run` has the steps, one line each.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import agents
from agents.contracts import (
    CONVERSIONS,
    ENRICHED_EVENTS,
    EVENT_COUNTS,
    RAW_EVENTS,
    USER_PROFILES,
    USER_SESSIONS,
)
from engine import config as configuration
from engine.cli import events, tally
from engine.cli.console import promised
from engine.cli.crew import Inside, Outside
from engine.cli.plan import Place, Plan, Result
from engine.cli.progress import Display, Snapshot
from engine.cli.running import run_loop
from engine.clock import SystemClock
from engine.connect.loader import Loader
from engine.devbroker import start_broker
from engine.errors import BrokerError, ConfigError
from engine.kafka.admin import KafkaAdmin
from engine.kafka.log import KafkaLog
from engine.record import TP

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from engine.cli.crew import Crew

LOOK_S = 0.1
STALLED_S = 60.0
PLAIN_SESSION_MS = 3_000
"""Tansu lets a group wait for half the session timeout before anything flows."""

RAW, PROFILES, ENRICHED, SESSIONS, COUNTS, CONVERTED = (
    topic.name
    for topic in (
        RAW_EVENTS,
        USER_PROFILES,
        ENRICHED_EVENTS,
        USER_SESSIONS,
        EVENT_COUNTS,
        CONVERSIONS,
    )
)
LETTERS = RAW_EVENTS.dead_letters
EMITTED = (ENRICHED, LETTERS, SESSIONS)


def run(plan: Plan, console: Console) -> Result:
    """Run the demo; everything that it started is gone afterwards."""
    app = agents.app
    with contextlib.ExitStack() as stack:
        temporary = tempfile.TemporaryDirectory(prefix="headrace-demo-", ignore_cleanup_errors=True)
        home = Path(stack.enter_context(temporary))
        data = _data(plan, console)  # before the broker: a file may turn out to be none of ours
        place = stack.enter_context(_place(plan, home, console))
        settings: dict[str, int] = {"partitions": plan.partitions, "retention_ms": -1}
        if place.guarantee == "at_least_once":
            settings["session_timeout_ms"] = PLAIN_SESSION_MS
        settings["window_headers"] = plan.sessions == "updates"
        configuration.export(**settings)  # for worker processes
        app.configure(broker=place.address, guarantee=place.guarantee, state_dir=place.state_dir,
                      end_marks=True, **settings)  # fmt: skip
        console.print(
            f"{place.name} at {place.address}, {promised(place.guarantee)}: {data.total:,} events, "
            f"{plan.partitions} partitions, {plan.replicas} worker{'s' * (plan.replicas > 1)}",
            soft_wrap=True,
        )
        return run_loop(Showcase(plan, place, data, console).run())


def _data(plan: Plan, console: Console) -> events.Input:
    if plan.file is None:
        return events.generated(plan.events, plan.users, plan.seed)
    with console.status(f"looking through {plan.file.name}"):
        return events.from_file(plan.file, SystemClock().now_ms())


@contextlib.contextmanager
def _place(plan: Plan, home: Path, console: Console) -> Iterator[Place]:
    """Have a broker: the given one, or one of our own."""
    state_dir = (plan.state_dir or home / "state").resolve()
    if plan.broker is not None:
        guarantee = plan.guarantee or "exactly_once"
        yield Place("Kafka", plan.broker, guarantee, state_dir, home)
        return
    configuration.connect_plainly()
    with console.status("starting a broker") as status:
        broker = start_broker(
            home / "broker", progress=status.update, cache=configuration.cache_dir()
        )
    with broker:
        guarantee = "exactly_once" if broker.transactions else "at_least_once"
        yield Place(broker.name, broker.bootstrap, guarantee, state_dir, home)


class Showcase:
    """One run of the job on a broker that is there."""

    def __init__(self, plan: Plan, place: Place, data: events.Input, console: Console) -> None:
        self._plan = plan
        self._place = place
        self._data = data
        self._console = console
        self._app = agents.app
        self._config = self._app.settings()
        self._clock = SystemClock()
        self._admin = KafkaAdmin(self._config)
        self._log = KafkaLog(self._config)
        self._loader = Loader(self._config)
        self._before = 0  # records that were sent before the first event

    async def run(self) -> Result:
        """Do it all."""
        try:
            await self._prepare()
            async with self._loader as loader:
                await loader.load(PROFILES, self._plan.partitions, self._data.profiles())
                self._before = loader.sent
                seconds = await self._work(self._crew())
            return await self._result(seconds)
        finally:
            await self._log.close()
            await self._admin.close()

    # -- topics ------------------------------------------------------------------------------

    async def _prepare(self) -> None:
        """Have the input topics, empty; never count what is not ours.

        Raises:
            ConfigError: there are records already in the job's topics.
        """
        topology = self._app.topology()
        names = [*topology.topics, *(topic.dead_letters for topic in topology.inputs.values())]
        found = await self._admin.partitions(names)
        if found and self._plan.fresh:
            await self._admin.delete(list(found))
        elif found:
            await self._refuse_leftovers(found)
        await self._admin.create([topology.inputs[RAW], topology.inputs[PROFILES]])
        await self._forgotten()

    async def _refuse_leftovers(self, found: dict[str, int]) -> None:
        address, wanted = self._place.address, self._plan.partitions
        filled = [name for name, width in found.items()
                  if (await tally.sizes(self._log, [name], width))[name]]  # fmt: skip
        other = [name for name, width in found.items() if width != wanted]
        for names, what in ((filled, "hold records already"),
                            (other, f"have not {wanted} partitions")):  # fmt: skip
            if names:
                raise ConfigError(
                    f"topics at {address} {what}: {', '.join(sorted(names))}. "
                    "Give --fresh to delete the job's topics there, or use another broker"
                )

    async def _forgotten(self) -> None:
        """Wait until the broker has forgotten what the group committed on deleted topics."""
        async with asyncio.timeout(STALLED_S):
            while await self._committed():
                await asyncio.sleep(LOOK_S)

    async def _committed(self) -> int:
        """Return how many events the group has committed, end marks included."""
        tps = [TP(RAW, number) for number in range(self._plan.partitions)]
        return sum((await self._admin.committed(self._config.id, tps)).values())

    # -- work --------------------------------------------------------------------------------

    def _crew(self) -> Crew:
        if self._plan.replicas == 1:
            return Inside(self._app)
        return Outside(
            self._app, self._place, self._plan.replicas, self._log,
            lambda text: self._console.print(text, markup=False),
        )  # fmt: skip

    async def _work(self, crew: Crew) -> float:
        """Send the events while the crew works on them; return the seconds until all is done."""
        await crew.start()
        began = self._clock.elapsed_ms()
        feeding = asyncio.get_running_loop().create_task(self._feed(), name="feed")
        try:
            with Display(self._console, self._clock, self._data.total) as display:
                await self._watch(crew, feeding, display)
            return (self._clock.elapsed_ms() - began) / 1000
        finally:
            feeding.cancel()
            await asyncio.wait([feeding])
            await crew.stop()

    async def _feed(self) -> None:
        await self._loader.load(RAW, self._plan.partitions, self._data.events())
        await self._loader.end(RAW, self._plan.partitions)

    async def _watch(self, crew: Crew, feeding: asyncio.Task[None], display: Display) -> None:
        """Look and show until the group has committed all that was sent.

        Raises:
            BrokerError: nothing has happened for a minute.
        """
        last, moved_ms = -1, self._clock.elapsed_ms()
        goal = self._data.total + self._plan.partitions  # with the marks at the end
        while True:
            crew.check()
            if feeding.done():
                feeding.result()
            done = await self._committed()
            enriched, dead_letters, sessions = await crew.emitted(EMITTED)
            display.show(Snapshot(
                produced=min(self._loader.sent - self._before, self._data.total),
                processed=min(done, self._data.total),
                enriched=enriched,
                dead_letters=dead_letters,
                sessions=sessions,
                exact=crew.exact,
            ))  # fmt: skip
            if done >= goal:
                return
            now = self._clock.elapsed_ms()
            if done != last:
                last, moved_ms = done, now
            elif now - moved_ms > STALLED_S * 1000:
                raise BrokerError(f"nothing was committed for {STALLED_S:.0f} s at {done:,} events")
            await asyncio.sleep(LOOK_S)

    # -- results -----------------------------------------------------------------------------

    async def _result(self, seconds: float) -> Result:
        unmatched = f"{self._config.id}-unmatched-changelog"
        topics = tally.Topics(ENRICHED, unmatched, LETTERS, SESSIONS, COUNTS, CONVERTED)
        widths = await self._admin.partitions(topics)
        with self._console.status("counting the results"):
            found = await tally.count(
                self._config, topics, widths.__getitem__, updates=self._plan.sessions == "updates"
            )
        count = self._data.total
        return Result(
            events=count,
            enriched=found.enriched,
            unmatched=0 if self._plan.keep_unmatched else found.unmatched,
            dead_letters=found.dead_letters,
            sessions=found.sessions,
            counts=found.counts,
            conversions=found.conversions,
            guarantee=self._place.guarantee,
            broker=self._place.name,
            seconds=round(seconds, 3),
            events_per_second=round(count / seconds) if seconds else 0,
        )
