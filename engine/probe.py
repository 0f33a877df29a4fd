"""What runs an agent up to its loop before the start, to learn what the topology must know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from engine.stream import Stream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from engine.move import Move
    from engine.operator import Make, Operator


class Wanted(NamedTuple):
    """An operator that an agent asks for: how to make it, and whether it lies behind the move."""

    make: Make
    moved: bool


class Probe(Stream[Any]):
    """Stands for a stream while the topology is found out: remembers the move and the operators."""

    def __init__(self) -> None:
        self.move: Move | None = None
        self.chunked = self.operated = False
        self.plain = self.whole = True
        self.wanted: dict[str, Wanted] = {}

    def __aiter__(self) -> AsyncIterator[Any]:
        raise ProbedError

    def _view(self, source: Any) -> Stream[Any]:
        self.plain = self.whole = False
        return self

    def batches(self) -> AsyncIterator[list[Any]]:
        """End the probe."""
        raise ProbedError

    def _moved(self, move: Move) -> Stream[Any]:
        self.move = move
        self.chunked = self.operated = False
        self.plain = self.whole = True
        return self

    def apply(self, operator: Operator) -> Stream[Any]:
        """Note the operator."""
        return self._operate(operator.name, lambda *_: operator)

    def _operate(self, name: str, make: Make) -> Stream[Any]:
        self._can_operate(name)
        self.operated = True
        self.wanted[name] = Wanted(make, moved=self.move is not None)
        return self

    @property
    def current_event(self) -> None:
        """There is no event before the loop."""
        return


class ProbedError(Exception):
    """The probe has come to the agent's loop."""
