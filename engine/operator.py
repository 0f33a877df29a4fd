"""Operators: handles of state that stands between a stream's events and what an agent sees of them.

A join of two streams reads both and yields pairs; a pattern reads one and yields matches. Either is
declared like a table and read like a topic (``@app.agent(paid)``), or made by a method of a stream
inside an agent (``orders.join(PAYMENTS, ...)``), which the probe finds before the start. Both run
through :meth:`engine.stream.Stream.apply`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.errors import ConfigError
from engine.feed import TICK, Feed
from engine.table import Kind, TableHandle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from engine.agent import Agent
    from engine.outbox import Outbox
    from engine.record import Run
    from engine.topic import Topic
    from tables.operator import OperatorPartition, Result
    from tables.store import Store

    Make = Callable[[str, Topic], "Operator"]


class Operator(TableHandle):
    """See the module. Kinds of operators are subclasses that say how to :meth:`open` a partition.

    Args:
        inputs: the topics that it reads; side number n of its partition is ``inputs[n]``. They must
            be co-partitioned.
        uses: tables that it looks things up in.

    Attributes:
        agents: what else must run for it, elsewhere.
    """

    kind: Kind = "operator"
    agents: tuple[Agent, ...] = ()

    def __init__(
        self,
        name: str,
        inputs: Sequence[Topic],
        *,
        uses: Sequence[TableHandle] = (),
        **options: Any,
    ) -> None:
        super().__init__(name, **options)
        self.inputs = tuple(inputs)
        self.uses = tuple(uses)
        self.sides = {topic.name: side for side, topic in enumerate(self.inputs)}
        if len(self.sides) < len(self.inputs):
            raise ConfigError(f"{name!r} joins {self.inputs[0].name} with itself: use two topics")

    def name_topics(self, app_id: str) -> None:
        """Name the internal topics that it reads and writes, where it has any."""

    def sender(self, outbox: Outbox, partition: int) -> Any:
        """Return what its partition sends to internal topics with; None: it sends nothing."""
        return None

    def open(self, store: Store, emit: Any) -> OperatorPartition:
        """Return this operator's partition on a task's store."""
        raise NotImplementedError


async def results(feed: Feed, events: AsyncIterator[Any], operator: Operator) -> AsyncIterator[Any]:
    """Yield what an operator makes of events, each with its own key and event time in hand."""
    context, sides = feed.context, operator.sides
    partition: OperatorPartition = context.table(operator.name)
    step, spoiled = partition.step, feed.spoiled
    feed.marking = True
    async for value in events:
        run, i = context.run, context.index
        if value is TICK:
            if feed.ended.issuperset(sides):
                feed.ended.clear()
                assert run is not None
                for result in partition.close_all():
                    yield _in_hand(feed, run, len(run), result)
                context.run, context.index = run, i
            yield TICK
            continue
        assert run is not None
        try:
            made = step(sides[run.tp.topic], run.keys[i], run.times[i], value)
        except Exception:
            if (run.tp, run.offsets[i]) not in spoiled:
                raise
            continue  # a function of the user's in it fails on this event: it does not count
        if made and not (spoiled and (run.tp, run.offsets[i]) in spoiled):
            for result in made:
                yield _in_hand(feed, run, i, result)
            context.run, context.index = run, i


def _in_hand(feed: Feed, run: Run, index: int, result: Result) -> Any:
    """Make a result the event in hand."""
    key, ts, value = result
    feed.context.run, feed.context.index = run.stand_in(index, key, ts, value), 0
    return value
