"""The streams of an agent that re-keys: its views run before the move or behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.feed import TICK
from engine.stream import Stream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from engine.move import Move
    from engine.operator import Make, Operator


class BeforeMove(Stream[Any]):
    """An agent's stream up to its move: what comes there goes to the topic in between."""

    forward: Callable[[Any, Move], None]

    def _view(self, source: Callable[[], AsyncIterator[Any]]) -> Stream[Any]:
        view = BeforeMove(self._feed, self._decode_key, source)
        view.forward = self.forward
        view.chunked, view.operated = self.chunked, self.operated
        return view

    def _moved(self, move: Move) -> Stream[Any]:
        forward = self.forward

        async def source() -> AsyncIterator[Any]:
            async for value in self._source():
                if value is not TICK:
                    forward(value, move)
            yield  # pragma: no cover  (never reached: a feed does not end)

        return Departed(self._feed, self._decode_key, source)


class Departed(Stream[Any]):
    """The part of an agent's stream that the other half takes: nothing is done here.

    In the half before the move it is what lies behind it.
    """

    def _view(self, source: Any) -> Stream[Any]:
        return self

    def apply(self, operator: Operator) -> Stream[Any]:
        """Do nothing: the other half applies it."""
        return self

    def _operate(self, name: str, make: Make) -> Stream[Any]:
        return self


class AfterMove(Departed):
    """An agent's stream up to its move, in the half behind it: the other half has done all that."""

    def _moved(self, move: Move) -> Stream[Any]:
        return Stream(self._feed, self._decode_key)
