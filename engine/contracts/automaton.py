"""A regular expression as an automaton (Glushkov's: a state for each character of the pattern).

What makes backtracking exponential is a loop that can be gone round in two ways over the same text.
In the automaton: two different paths from a state back to itself that read the same characters
(Weber and Seidl, "On the degree of ambiguity of finite automata", 1991).
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import product
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any, NamedTuple

STATES_MAX = 300
COPIES_MAX = 4
"""``x{2,4}`` is written out; a count above it is taken for a loop, which errs on the safe side."""
CHARS_MAX = 3

_CLASSES = {
    sre.CATEGORY_DIGIT: re.compile(r"\d"),
    sre.CATEGORY_NOT_DIGIT: re.compile(r"\D"),
    sre.CATEGORY_SPACE: re.compile(r"\s"),
    sre.CATEGORY_NOT_SPACE: re.compile(r"\S"),
    sre.CATEGORY_WORD: re.compile(r"\w"),
    sre.CATEGORY_NOT_WORD: re.compile(r"\W"),
}


class _Part(NamedTuple):
    """A piece of the pattern: whether it can be empty, and the states it begins and ends with."""

    empty: bool
    first: tuple[int, ...]
    last: tuple[int, ...]


_NOTHING = _Part(True, (), ())  # noqa: FBT003


class _Unknown(Exception):
    """The pattern has a part that is not looked through; the text says which."""


class Automaton:
    """A pattern's automaton.

    Attributes:
        fault: why the pattern is refused; empty if it is not.
    """

    def __init__(self, pattern: str) -> None:
        self._reads: list[frozenset[str]] = []
        self._follow: list[Counter[int]] = []
        self._first: tuple[int, ...] = ()
        self.fault = ""
        tree = _parser.parse(pattern)
        self._samples = sorted(_samples(tree))
        self._fold = bool(tree.state.flags & re.IGNORECASE)
        try:
            self._first = self._sequence(tree).first
        except _Unknown as error:
            self.fault = str(error)
        else:
            if self._ambiguous():
                self.fault = (
                    "can go round a repetition in two ways over the same text, which takes a time "
                    "that doubles with each character: rewrite it so that there is one way only"
                )

    # -- making it ---------------------------------------------------------------------------

    def _sequence(self, items: Iterable[Any]) -> _Part:
        whole = _NOTHING
        for op, argument in items:
            whole = self._join(whole, self._part(op, argument))
        return whole

    def _join(self, left: _Part, right: _Part) -> _Part:
        self._link(left.last, right.first)
        return _Part(
            left.empty and right.empty,
            left.first + (right.first if left.empty else ()),
            right.last + (left.last if right.empty else ()),
        )

    def _link(self, ends: Iterable[int], begins: tuple[int, ...]) -> None:
        for end in ends:
            for begin in begins:
                self._follow[end][begin] += 1

    def _part(self, op: Any, argument: Any) -> _Part:
        if op in {sre.LITERAL, sre.NOT_LITERAL, sre.ANY, sre.IN}:
            return self._state(op, argument)
        if op in {sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT}:
            return self._repeat(*argument)
        if op in {sre.GROUPREF, sre.GROUPREF_EXISTS}:
            raise _Unknown("has a back-reference, for which there is no time limit: leave it out")
        parts = [self._sequence(each) for each in _inside(op, argument)]
        if op in {sre.AT, sre.ASSERT, sre.ASSERT_NOT}:
            return _NOTHING  # a look-around takes nothing; its own loops have been seen
        if sum(part.empty for part in parts) > 1:
            raise _Unknown("has two alternatives that match the same: leave one out")
        return _Part(
            any(part.empty for part in parts),
            tuple(state for part in parts for state in part.first),
            tuple(state for part in parts for state in part.last),
        )

    def _state(self, op: Any, argument: Any) -> _Part:
        if len(self._reads) >= STATES_MAX:
            raise _Unknown(f"has more than {STATES_MAX} characters and classes: make it shorter")
        chars = frozenset(c for c in self._samples if self._matches(op, argument, c))
        self._reads.append(chars)
        self._follow.append(Counter())
        state = (len(self._reads) - 1,)
        return _Part(False, state, state)  # noqa: FBT003

    def _matches(self, op: Any, argument: Any, char: str) -> bool:
        cases = {char, char.lower(), char.upper()} if self._fold else {char}
        if op is sre.ANY:
            return char != "\n"
        if op is sre.LITERAL:
            return chr(argument) in cases
        if op is sre.NOT_LITERAL:
            return chr(argument) not in cases
        negated = argument[0][0] is sre.NEGATE
        found = any(_in_set(item, case) for item in argument[negated:] for case in cases)
        return found != negated

    def _repeat(self, low: int, high: Any, items: Any) -> _Part:
        if high is sre.MAXREPEAT or high > COPIES_MAX:
            part = self._sequence(items)
            self._link(part.last, part.first)
            return part._replace(empty=part.empty or low == 0)
        whole = _NOTHING
        for number in range(high):
            part = self._sequence(items)
            whole = self._join(whole, part._replace(empty=part.empty or number >= low))
        return whole

    # -- looking at it -----------------------------------------------------------------------

    def _ambiguous(self) -> bool:
        """Say whether some state has two ways back to itself over the same text."""
        reach = [self._reachable(state) for state in range(len(self._reads))]
        for state in range(len(self._reads)):
            if state not in reach[state]:
                continue
            loop = {other for other in reach[state] if state in reach[other]}
            if any(self._follow[p][q] > 1 for p in loop for q in self._follow[p] if q in loop):
                return True
            if self._two_ways(state, loop):
                return True
        return False

    def _reachable(self, start: int) -> set[int]:
        seen: set[int] = set()
        waiting = list(self._follow[start])
        while waiting:
            state = waiting.pop()
            if state not in seen:
                seen.add(state)
                waiting += self._follow[state]
        return seen

    def _two_ways(self, start: int, loop: set[int]) -> bool:
        """Walk two paths at once; say whether they part and meet again at ``start``."""
        seen = {(start, start, False)}
        waiting = [(start, start, False)]
        while waiting:
            one, other, parted = waiting.pop()
            for p in self._follow[one].keys() & loop:
                for q in self._follow[other].keys() & loop:
                    if self._reads[p].isdisjoint(self._reads[q]):
                        continue
                    step = (p, q, parted or p != q)
                    if step == (start, start, True):
                        return True
                    if step not in seen:
                        seen.add(step)
                        waiting.append(step)
        return False

    def hostile(self) -> Iterator[tuple[str, str, str]]:
        """Yield texts for the trial: a head, what is repeated, and a tail that spoils the match.

        For each loop: the shortest way there, then around it, by different characters.
        """
        texts: dict[tuple[str, str, str], None] = {}
        for state, chars in enumerate(self._reads):
            around = self._path(tuple(self._follow[state]), state)
            if around is None:
                continue
            heads = ["", self._spell(self._path(self._first, state) or ())]
            common = sorted(chars, key=self._popularity, reverse=True)[:CHARS_MAX]
            pumps = common if state in self._follow[state] else [self._spell(around)]
            foreign = sorted(set(self._samples) - chars, key=self._popularity)[:CHARS_MAX]
            # twice: "$" takes a newline at the end
            for text in product(heads, pumps, ["", *(2 * char for char in foreign)]):
                texts[text] = None
        yield from texts

    def _popularity(self, char: str) -> int:
        return sum(char in chars for chars in self._reads)

    def _path(self, begins: tuple[int, ...], goal: int) -> tuple[int, ...] | None:
        """Return the states on the shortest way to ``goal``, which is the last of them."""
        waiting: list[tuple[int, ...]] = [(state,) for state in begins]
        seen = set(begins)
        for path in waiting:
            if path[-1] == goal:
                return path
            for state in self._follow[path[-1]]:
                if state not in seen:
                    seen.add(state)
                    waiting.append((*path, state))
        return None

    def _spell(self, path: Iterable[int]) -> str:
        return "".join(min(self._reads[state], default="?") for state in path)


def _in_set(item: tuple[Any, Any], char: str) -> bool:
    op, argument = item
    if op is sre.LITERAL:
        return bool(ord(char) == argument)
    if op is sre.RANGE:
        return bool(argument[0] <= ord(char) <= argument[1])
    return _CLASSES[argument].match(char) is not None


def _samples(tree: Any) -> set[str]:
    """Return a character of each kind that the pattern can tell apart."""
    chars = set("aZ0_ -.!\n\u00e9\u0663\u4e2d")
    for op, argument in tree:
        for item in argument if op is sre.IN else [(op, argument)]:
            if item[0] in {sre.LITERAL, sre.NOT_LITERAL}:
                chars |= _around(item[1], item[1])
            elif item[0] is sre.RANGE:
                chars |= _around(*item[1])
        for inner in _inside(op, argument):
            chars |= _samples(inner)
    return chars


def _around(low: int, high: int) -> set[str]:
    return {chr(code) for code in (low - 1, low, high, high + 1) if 0 <= code <= sys.maxunicode}


def _inside(op: Any, argument: Any) -> Iterator[Any]:
    if op in {sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT}:
        yield argument[2]
    elif op is sre.SUBPATTERN:
        yield argument[3]
    elif op is sre.ATOMIC_GROUP:
        yield argument
    elif op is sre.BRANCH:
        yield from argument[1]
    elif op in {sre.ASSERT, sre.ASSERT_NOT}:
        yield argument[1]
