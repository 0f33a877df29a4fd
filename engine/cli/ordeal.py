"""A campaign's surroundings: topics, profiles, workers, what is shown while it lasts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from rich.live import Live
from rich.text import Text

import agents
from agents.contracts import RAW_EVENTS, USER_PROFILES
from agents.workload import Workload
from engine import crashpoint
from engine.clock import SystemClock
from engine.errors import BrokerError, ConfigError
from engine.kafka.admin import KafkaAdmin
from engine.kafka.producer import KafkaOutlet
from engine.torture import crashes, observer
from engine.torture.campaign import Campaign, Outcome, Progress
from engine.torture.checker import Job
from engine.torture.fleet import Fleet
from engine.torture.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rich.console import Console

    from engine.devbroker import DevBroker
    from engine.torture.campaign import Plan

USERS = 2_000
CRASH_EVENTS, CRASH_USERS = 4_000, 200
PLAIN_S = 10.0
OPEN_S = 20.0
ENDLESS = 1 << 40
"""So many events a workload has: more than any campaign takes."""


class Ordeal:
    """One campaign, from an empty broker on.

    Args:
        settings: of the job, in the environment already; the workers get them too.
    """

    def __init__(
        self,
        plan: Plan,
        home: Path,
        broker: DevBroker | None,
        settings: Mapping[str, Any],
        console: Console,
    ) -> None:
        self._plan = plan
        self._home = home
        self._broker = broker
        self._settings = settings
        self._console = console
        self._clock = SystemClock()
        self._config = agents.app.settings()
        self._job = Job(settings["prefix"], keep_unmatched=True)
        self._said_ms = self._clock.elapsed_ms()
        self._live = Live(console=console, auto_refresh=False, transient=True)

    async def run(self) -> Outcome:
        """Do it all; the workers are gone afterwards."""
        await self._need_transactions()
        work = Workload(events=ENDLESS, users=USERS, seed=self._plan.seed)
        admin = KafkaAdmin(self._config)
        fleet = Fleet(self._home, self._job.app, self._settings, self._clock)
        try:
            await self._prepare(admin, work)
            campaign = Campaign(
                self._plan, self._job, self._config.broker, fleet, work.raw_events(),
                broker=self._broker, clock=self._clock, show=self._show,
            )  # fmt: skip
            if self._console.is_terminal:
                self._live.start()
            outcome = await campaign.run()
            if not outcome.verdict.findings and self._broker is None:
                await admin.delete([*self._job.inputs, *self._job.written])
            return outcome
        finally:
            self._live.stop()
            await asyncio.to_thread(fleet.kill_all)
            await admin.close()

    async def crash_everywhere(self) -> Outcome:
        """Let workers die at each named place; the outcome's kills are those that did."""
        await self._need_transactions()
        work = Workload(events=CRASH_EVENTS, users=CRASH_USERS, seed=self._plan.seed)
        given = crashes.Input(list(work.profiles()), list(work.raw_events()))
        verdict = Verdict()
        with self._console.status("workers die at named places, three at a time"):
            found = await crashes.crash_everywhere(
                self._config.broker, self._home, given, self._clock
            )
        for crash in found:
            verdict.merge(crash.verdict)
        died = [crash for crash in found if crash.exit_code == crashpoint.EXIT_CODE]
        missed = [crash.point for crash in found if crash not in died]
        verdict.add("I8", "places that no worker died at", missed)
        return Outcome(len(died), len(found), verdict, [])

    async def _need_transactions(self) -> None:
        """Refuse a broker that has none.

        Raises:
            ConfigError: it has none.
        """
        outlet = KafkaOutlet(self._config, f"{self._job.app}-probe")
        try:
            async with asyncio.timeout(OPEN_S):
                await outlet.open()
        except (BrokerError, TimeoutError) as error:
            raise ConfigError(
                f"the broker at {self._config.broker} cannot be used: {error}. A campaign judges "
                "exactly once, and that needs Kafka's transactions"
            ) from error
        finally:
            await outlet.close()

    async def _prepare(self, admin: KafkaAdmin, work: Workload) -> None:
        """Create the input topics and load the profiles.

        Raises:
            ConfigError: topics of the campaign's are there already.
        """
        found = await admin.partitions([*self._job.inputs, *self._job.written])
        if found:
            raise ConfigError(f"{self._config.broker} has topics of this campaign's already: "
                              f"{', '.join(sorted(found))}. Start it again")  # fmt: skip
        await admin.create([RAW_EVENTS, USER_PROFILES])
        await observer.produce(
            self._config.broker, USER_PROFILES.name, work.profiles(), self._plan.partitions
        )

    def _show(self, at: Progress) -> None:
        recovery = "-" if at.recovery_s is None else f"{at.recovery_s:.1f} s"
        of = f"{at.kills} of {self._plan.kills} kills" if at.kills else f"{at.faults} faults"
        text = (
            f"{at.phase}: {of}, {at.sent:,} events sent, {at.done:,} done, last recovery {recovery}"
        )
        now = self._clock.elapsed_ms()
        if self._console.is_terminal:
            self._live.update(Text(text), refresh=True)
        elif now - self._said_ms >= PLAIN_S * 1000:
            self._said_ms = now
            self._console.print(text, soft_wrap=True)
