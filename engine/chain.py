"""Agents without a coroutine of their own: ``app.stream(ORDERS).filter(...).join(...).to(DONE)``.

A chain is a list of a stream's methods with their arguments. ``to`` declares an agent whose
coroutine calls them one after the other on its own stream, so there is nothing that a chain does
differently from an agent that is written out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from engine.errors import ConfigError
from engine.stream import Stream
from engine.table import TableHandle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from engine.agent import Agent
    from engine.app import App

_ENDS = {"batches", "current_event"}
"""What a stream has that gives no stream."""


class Step(NamedTuple):
    """A method of a stream, and how it is to be called."""

    method: str
    positional: tuple[Any, ...]
    named: dict[str, Any]

    def arguments(self) -> Iterator[Any]:
        """Yield all arguments."""
        yield from self.positional
        yield from self.named.values()


class Chain:
    """What :meth:`engine.app.App.stream` returns. Has the methods of :class:`Stream`, and ``to``.

    Each returns a new chain: one that is kept can be gone on with in several ways.
    """

    def __init__(self, app: App, channel: Any, steps: tuple[Step, ...] = ()) -> None:
        self._app = app
        self._channel = channel
        self._steps = steps

    def __repr__(self) -> str:
        return f"<Chain on {self._place()}: {' '.join(s.method for s in self._steps) or 'nothing'}>"

    def _place(self) -> str:
        return str(getattr(self._channel, "name", self._channel))

    def __getattr__(self, name: str) -> Callable[..., Chain]:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in _ENDS or not callable(getattr(Stream, name, None)):
            raise ConfigError(f"a chain has no {name!r}: write an agent, or see dir(engine.Stream)")

        def note(*positional: Any, **named: Any) -> Chain:
            steps = (*self._steps, Step(name, positional, named))
            return Chain(self._app, self._channel, steps)

        return note

    def to(self, *sinks: Any, name: str | None = None, **options: Any) -> Agent:
        """Declare the agent. What comes out of the chain goes to the sinks, if any.

        Args:
            sinks: as ``@app.agent(..., sink=[...])`` takes them.
            name: of the agent; by default the names of what it reads and of its first sink. It
                names state, too: an app that was started must keep it.
            options: see :meth:`engine.app.App.agent`.
        """
        steps = self._steps
        arguments = [each for step in steps for each in step.arguments()]

        async def chained(stream: Stream[Any]) -> AsyncIterator[Any]:
            view = stream
            for method, positional, named in steps:
                view = getattr(view, method)(*positional, **named)
            async for value in view:
                yield value

        first = getattr(sinks[0], "name", "") if sinks else ""
        declare = self._app.agent(
            self._channel,
            name=name or "-to-".join(filter(None, (self._place(), first))),
            sink=sinks,
            tables=[each for each in arguments if isinstance(each, TableHandle)],
            calls=[each for each in arguments if callable(each)],
            **options,
        )
        return declare(chained)
