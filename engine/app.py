"""Faust's surface on our engine.

``App`` is a ``faust.App``: timers, crontab, tasks, commands, pages, signals and the ``faust``
command line are Faust's. Topics, agents, tables, sinks and sends are ours, and no record passes
Faust's consumer, conductor, channels, tables, recovery or producer: the boot strategy starts one
service, the engine, in the place of all of them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import faust
import msgspec

from engine import config as configuration
from engine import faustnames, memory
from engine.agent import Agent
from engine.chain import Chain
from engine.contracts.contract import Contract
from engine.declarations import Declarations
from engine.errors import ConfigError
from engine.faustrecord import contract_of
from engine.kafka import kafka_edges
from engine.loop import Engine
from engine.operator import Operator
from engine.partitioner import partitioner_for
from engine.policy import OnError
from engine.security import hidden
from engine.service import Boot, EngineService
from engine.table import TableHandle
from engine.timers import Punctuator
from engine.topic import Topic, TopicConfig
from engine.topology import Topology, build

if TYPE_CHECKING:
    from engine.config import Config


class App(Declarations, faust.App):  # type: ignore[misc]
    """An app: what its worker processes do. Takes Faust's settings and ours.

    Args:
        id: names the consumer group, the changelogs and the transactional ids.
        broker: ``host:port`` (Faust's ``kafka://host:port`` too).
        settings: fields of :class:`engine.config.Config`; everything else goes to Faust.
    """

    BootStrategy: ClassVar[Any] = Boot
    mundane_level = "debug"

    def __init__(self, id: str, *, broker: Any = None, **settings: Any) -> None:  # noqa: A002
        known = {field.name for field in msgspec.structs.fields(configuration.Config)}
        settings = faustnames.translated(settings)
        self._settings = {name: settings.pop(name) for name in list(settings) if name in known}
        self._settings["security"] = hidden(self._settings.get("security"))
        if broker is not None:
            self._settings["broker"] = faustnames.plain_broker(broker)
        self.declared_agents: list[Agent] = []
        self.declared_tables: dict[str, TableHandle] = {}
        self.declared_topics: dict[str, Topic] = {}
        self.declared_punctuators: list[Punctuator] = []
        self.timers: list[tuple[int, Callable[[], Any]]] = []
        self._engine: Engine | None = None
        self._engine_service: EngineService | None = None
        self._app_id = id
        super().__init__(
            id, broker=f"kafka://{self._settings.get('broker', 'localhost')}", **settings
        )

    # -- topics ------------------------------------------------------------------------------

    def topic(  # type: ignore[override]  # noqa: PLR0913
        self,
        *topics: str,
        value_type: Any = None,
        key_type: Any = None,
        contract: Contract | None = None,
        partitions: int | None = None,
        replicas: int | None = None,
        retention: float | None = None,
        compacting: bool = False,
        internal: bool = False,
        config: dict[str, Any] | None = None,
        **rest: Any,
    ) -> Any:
        """Declare a topic (or several, for one agent to read together).

        Args:
            value_type: the type of the values: a Struct whose constraints are the contract, a
                ``faust.Record``, ``bytes``, ``str``, or None for any JSON.
            contract: the contract, where a type does not say enough.
            retention: how long records are kept, in seconds.
            compacting: keep the last record of each key.
        """
        for name, option in rest.items():
            if name not in faustnames.IGNORED:
                raise ConfigError(f"topic {topics[0]!r}: there is no option {name!r} here")
            if name.endswith("_serializer"):
                faustnames.check_serializer(option, f"topic {topics[0]!r}")
        if not topics:
            raise ConfigError("app.topic() needs a name")
        extra = {name: str(value) for name, value in (config or {}).items()}
        how = TopicConfig(
            partitions=partitions,
            replicas=replicas,
            retention_ms=None if retention is None else round(1000 * retention),
            compacted=compacting,
            extra=extra,
        )
        made = [
            self._topic(
                name,
                contract or contract_of(name, value_type, key_type, compacted=compacting),
                how,
                internal=internal,
            )
            for name in topics
        ]
        return made[0] if len(made) == 1 else made

    def _topic(self, name: str, contract: Contract, how: TopicConfig, *, internal: bool) -> Topic:
        topic = Topic(name, contract, how, internal=internal)
        topic.send_outside = self._send_outside
        self.declared_topics[name] = topic
        return topic

    def topic_named(self, name: str) -> Topic:
        """Return the topic of that name; one that nobody declared carries raw bytes."""
        known = self.declared_topics.get(name) or self.topology().topics.get(name)
        if known is not None:
            return known
        contract = Contract.of(name, bytes, null_values=True, key_type=bytes)
        return Topic(name, contract, internal=True)

    async def _send_outside(self, topic: str, key: Any, value: Any, timestamp: Any, headers: Any,
                            partition: int | None) -> None:  # fmt: skip
        """Send from a timer, a command or a page: at once, in no transaction."""
        engine = self.engine
        if partition is None and key is not None:
            counts = await engine.edges.admin.partitions([topic])
            if topic not in counts:
                raise ConfigError(f"topic {topic} does not exist: `headrace topics create {topic}`")
            partition = partitioner_for(counts[topic])[key]
        when = engine.edges.clock.now_ms() if timestamp is None else timestamp
        await engine.edges.outlet.send(topic, key, value, when, headers, partition)

    # -- agents ------------------------------------------------------------------------------

    def agent(  # type: ignore[override]  # noqa: PLR0913
        self,
        channel: Any = None,
        *,
        name: str | None = None,
        sink: Iterable[Any] | None = None,
        tables: Sequence[TableHandle] = (),
        calls: Sequence[Callable[..., Any]] = (),
        on_error: OnError = "dead_letter",
        retries: int = 0,
        concurrency: int = 1,
        **rest: Any,
    ) -> Callable[[Callable[..., Any]], Agent]:
        """Make an agent of a coroutine function.

        Args:
            channel: the topic it reads (or a list of them, a topic's name, or an operator).
            sink: topics, agents or functions that get each value it yields.
            tables: tables it uses that its code does not name.
            calls: functions it calls that its code does not name, and that may use tables.
            on_error: what becomes of an event on which it raises: ``"dead_letter"``, ``"skip"``,
                ``"stop"``, or tries before that: ``retry(3, backoff=0.2).then("stop")``.
        """
        if concurrency != 1:
            raise ConfigError(
                "concurrency= would process a partition's events out of order: use more "
                "partitions, or stream.map_async(fn): calls run together, results keep their order"
            )
        for option in rest:
            if option not in faustnames.IGNORED:
                raise ConfigError(f"@app.agent: there is no option {option!r} here")

        def declare(fun: Callable[..., Any]) -> Agent:
            given = name or fun.__qualname__.rpartition(".")[2]
            agent = Agent(
                fun,
                self._channels(channel, given),
                operator=channel if isinstance(channel, Operator) else None,
                name=given,
                sinks=tuple(sink or ()),
                tables=tables,
                calls=calls,
                on_error=on_error,
                retries=retries,
            )
            if any(agent.name == other.name for other in self.declared_agents):
                raise ConfigError(f"there are two agents named {agent.name!r}: give one a name=")
            self.declared_agents.append(agent)
            return agent

        return declare

    def _channels(self, channel: Any, agent: str) -> list[Topic]:
        if channel is None:  # as in Faust: a topic named after the agent
            return [self.topic(f"{self._app_id}-{agent}")]
        if isinstance(channel, str):
            return [self.topic(channel)]
        if isinstance(channel, Topic):
            return [channel]
        if isinstance(channel, Operator):
            return list(channel.inputs)
        return list(channel)

    def stream(  # type: ignore[override]
        self, channel: Any
    ) -> Chain:
        """Begin an agent that is a chain of a stream's methods, ended by ``to(sink)``.

        Args:
            channel: what :meth:`agent` takes.
        """
        return Chain(self, channel)

    # -- timers ------------------------------------------------------------------------------

    def timer(  # type: ignore[override]
        self, interval: Any, *args: Any, **options: Any
    ) -> Any:
        """Call a coroutine function every ``interval`` seconds, while the worker runs."""
        seconds = interval.total_seconds() if hasattr(interval, "total_seconds") else interval
        declare = super().timer(interval, *args, **options)

        def note(fun: Callable[..., Any]) -> Any:
            takes_app = bool(inspect.signature(fun).parameters)
            self.timers.append((round(1000 * seconds), lambda: fun(self) if takes_app else fun()))
            return declare(fun)

        return note

    def punctuate(
        self, channel: Topic | None = None, **options: Any
    ) -> Callable[[Callable[[int], Any]], Callable[[int], Any]]:
        """Call a function of the time (ms) in each task, between two events, in its transactions.

        Args:
            channel: a topic: the tasks that read it call it. None: those with the tables it uses.
            options: ``stream_time=`` or ``wall_clock=`` (s): :class:`engine.timers.Punctuator`.
        """

        def declare(fun: Callable[[int], Any]) -> Callable[[int], Any]:
            made = Punctuator(fun, channel=channel, **options)
            if any(made.name == other.name for other in self.declared_punctuators):
                raise ConfigError(f"there are two punctuators named {made.name!r}: rename one")
            self.declared_punctuators.append(made)
            return fun

        return declare

    def is_leader(self) -> bool:
        """Say whether this worker has the first partition: one worker of an app has."""
        engine = self._engine
        return engine is not None and any(key[1] == 0 for key in engine.assignment.tasks)

    # -- the engine --------------------------------------------------------------------------

    def settings(self, **overrides: Any) -> Config:
        """Return the settings: the overrides, then the app's own, then the environment's."""
        return configuration.make({"id": self._app_id, **self._settings, **overrides})

    def configure(self, **settings: Any) -> None:
        """Change settings before the start (the command line's options)."""
        self._settings |= {name: value for name, value in settings.items() if value is not None}

    def topology(self) -> Topology:
        """Return what the app declares, put together."""
        if not self.declared_agents:
            raise ConfigError(
                f"app {self._app_id!r} has no agents: is the module with its @app.agent imported?"
            )
        return build(
            self._app_id,
            self.declared_agents,
            self.declared_tables.values(),
            self.declared_topics.values(),
            self.declared_punctuators,
        )

    def attach(self, engine: Engine) -> None:
        """Let sends from outside of agents go through this engine."""
        self._engine = engine

    @property
    def engine(self) -> Engine:
        """The engine of this process; made at the first look."""
        if self._engine is None:
            config, topology = memory.fitted(self.settings()), self.topology()
            self._engine = Engine(config, topology, kafka_edges(config, topology.parts))
        return self._engine

    @property
    def engine_service(self) -> EngineService:
        """The engine as a service."""
        if self._engine_service is None:
            self._engine_service = EngineService(self, loop=self.loop, beacon=self.beacon)
        return self._engine_service

    async def _wait_for_table_recovery_completed(self) -> bool:
        """Let timers and tasks start once the worker has its partitions; True: it never did."""
        await self.wait_first(self.engine.ready.wait())
        return bool(self.should_stop)

    async def on_first_start(self) -> None:
        """Make none of Faust's directories: the state is in ``state_dir``."""

    async def on_start(self) -> None:
        """Finalize; Faust would make its consumer here."""
        self.finalize()

    def _create_directories(self) -> None:
        """Make none: Faust's data directory would hold nothing of ours."""

    async def on_stop(self) -> None:
        """Tell who asked to be told; there is no consumer or producer of Faust's to stop."""
        await self.on_before_shutdown.send()
        await self._maybe_close_http_client()
