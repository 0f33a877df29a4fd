"""Patterns: which events, in which order, with what in between, make a match.

A pattern is built step by step and never changed: each call returns a new one. What the words mean
is Flink CEP 2.3's meaning; ``docs/patterns.md`` shows each with an example.

    Pattern.begin("login").where(is_login)
    .followed_by("purchase").where(is_purchase)
    .within(3600)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Generic, Literal, TypeVar

import msgspec

from engine.errors import ConfigError
from engine.table import Seconds
from engine.windowed import milliseconds
from tables.nfa import Automaton, Test
from tables.partials import Skip
from tables.pattern import shape_of
from tables.runs import Before
from tables.steps import Contiguity, Step, compile_steps

__all__ = [
    "Before", "Pattern", "no_skip", "skip_past_last_event", "skip_to_first", "skip_to_last",
    "skip_to_next",
]  # fmt: skip

E = TypeVar("E")
Condition = Callable[[E], Any] | Callable[[E, Before], Any]
Between = Literal["first_and_last", "previous_and_current"]

_NEGATIVE = ("not_next", "not_followed_by")


def no_skip() -> Skip:
    """A match changes nothing for the others; this is the default."""
    return Skip("nothing")


def skip_to_next() -> Skip:
    """A match drops every other one, partial or complete, that began with the same event."""
    return Skip("next")


def skip_past_last_event() -> Skip:
    """A match drops every other one that began before it ended."""
    return Skip("end")


def skip_to_first(step: str) -> Skip:
    """A match drops every other one that began before the first event of its ``step``."""
    return Skip("first", step)


def skip_to_last(step: str) -> Skip:
    """A match drops every other one that began before the last event of its ``step``."""
    return Skip("last", step)


class Pattern(Generic[E]):
    """A pattern of events of type ``E``. Begin one with :meth:`begin`.

    Methods that add a step (:meth:`next`, :meth:`followed_by`, ...) say how it follows the step
    before; all others are about the last step. Each raises :class:`ConfigError` where Flink
    refuses the same.
    """

    __slots__ = ("skip", "steps")

    def __init__(self, steps: tuple[Step, ...], skip: Skip) -> None:
        self.steps = steps
        self.skip = skip

    def __repr__(self) -> str:
        return "<Pattern " + " ".join(f"{s.contiguity}:{s.name}" for s in self.steps)[5:] + ">"

    @staticmethod
    def begin(name: str, *, skip: Skip = Skip()) -> Pattern[Any]:  # noqa: B008  (immutable)
        """Begin a pattern with its first step.

        Args:
            skip: what a match does to the others: :func:`no_skip`, :func:`skip_to_next`,
                :func:`skip_past_last_event`, :func:`skip_to_first`, :func:`skip_to_last`.
        """
        return Pattern((_step((), name, "next"),), skip)

    # -- steps -------------------------------------------------------------------------------

    def next(self, name: str) -> Pattern[E]:
        """Add a step whose event comes right after the one before, of the events of the key."""
        return self._then(name, "next")

    def followed_by(self, name: str) -> Pattern[E]:
        """Add a step that takes the first event that meets it; others in between do not matter."""
        return self._then(name, "followed_by")

    def followed_by_any(self, name: str) -> Pattern[E]:
        """Add a step that takes any event that meets it: each makes a match of its own."""
        return self._then(name, "followed_by_any")

    def not_next(self, name: str) -> Pattern[E]:
        """Add a step that the very next event must not meet."""
        return self._then(name, "not_next")

    def not_followed_by(self, name: str) -> Pattern[E]:
        """Add a step that no event up to the following step may meet.

        At the end of a pattern it needs :meth:`within`: the match is complete when that is over.
        """
        return self._then(name, "not_followed_by")

    def _then(self, name: str, contiguity: Contiguity) -> Pattern[E]:
        return Pattern((*self.steps, _step(self.steps, name, contiguity)), self.skip)

    def _with(self, **changes: Any) -> Pattern[E]:
        return Pattern(
            (*self.steps[:-1], msgspec.structs.replace(self.steps[-1], **changes)), self.skip
        )

    # -- conditions --------------------------------------------------------------------------

    def where(self, condition: Condition[E]) -> Pattern[E]:
        """Say which events the step takes: (event) -> bool, or (event, before) -> bool.

        ``before["login"]`` is the list of events that this partial match has for a step so far.
        A second ``where`` must hold too. Conditions must be pure functions: how often and for
        which events they are called is not promised.
        """
        test = _test(condition, "where")
        had = self.steps[-1].where
        return self._with(where=test if had is None else _both(had, test))

    def or_where(self, condition: Condition[E]) -> Pattern[E]:
        """Let the step take events that meet this one instead of those said before."""
        test = _test(condition, "or_where")
        had = self.steps[-1].where
        return self._with(where=test if had is None else _either(had, test))

    # -- how often ---------------------------------------------------------------------------

    def times(self, least: int, most: int | None = None) -> Pattern[E]:
        """Let the step take exactly ``least`` events, or from ``least`` to ``most`` of them."""
        most = least if most is None else most
        if least < 0 or most < 1 or most < least:
            raise ConfigError(f"times({least}, {most}): give 0 <= least <= most, and 1 <= most")
        return self._quantify("times", max(1, least), most, optional=least == 0)

    def times_or_more(self, least: int) -> Pattern[E]:
        """Let the step take ``least`` events or any number above."""
        if least < 1:
            raise ConfigError(f"times_or_more({least}): give 1 or more, and optional() for none")
        return self._quantify("times_or_more", least, None)

    def one_or_more(self) -> Pattern[E]:
        """Let the step take one event or any number above."""
        return self._quantify("one_or_more", 1, None)

    def _quantify(
        self, word: str, least: int, most: int | None, *, optional: bool = False
    ) -> Pattern[E]:
        self._positive(word)
        if self.steps[-1].quantified:
            raise ConfigError(f"{word}() after times() or its kin: one of them is enough")
        optional = optional or self.steps[-1].optional
        return self._with(least=least, most=most, quantified=True, optional=optional)

    def optional(self) -> Pattern[E]:
        """Let the step be left out. Then it is not in the match."""
        self._positive("optional")
        if self.steps[-1].optional:
            raise ConfigError("optional() is said twice of one step: once is enough")
        if len(self.steps) > 1 and self.steps[-2].greedy:
            raise ConfigError(
                f"optional step {self.steps[-1].name!r} behind a greedy one: drop greedy() of "
                f"{self.steps[-2].name!r}, or optional()"
            )
        return self._with(optional=True)

    def greedy(self) -> Pattern[E]:
        """Let the step take an event that the following step would take as well."""
        self._positive("greedy")
        if self.steps[-1].inside == "followed_by_any":
            raise ConfigError("greedy() and allow_combinations() exclude each other: drop one")
        if self.steps[-1].contiguity == "followed_by_any":
            raise ConfigError("greedy() does not go with followed_by_any(): use followed_by()")
        if not self.steps[-1].quantified:
            raise ConfigError("greedy() goes with times(), times_or_more() or one_or_more()")
        return self._with(greedy=True)

    def consecutive(self) -> Pattern[E]:
        """Let the step's own events follow each other without any other event in between."""
        return self._inside("consecutive", "next")

    def allow_combinations(self) -> Pattern[E]:
        """Let the step leave out events that it could take: each combination is a match."""
        return self._inside("allow_combinations", "followed_by_any")

    def _inside(self, word: str, inside: Literal["next", "followed_by_any"]) -> Pattern[E]:
        if not self.steps[-1].quantified:
            raise ConfigError(f"{word}() goes with times(), times_or_more() or one_or_more()")
        if self.steps[-1].inside != "followed_by":
            raise ConfigError(
                f"{word}(): how the events of step {self.steps[-1].name!r} follow each other is "
                "said already: keep one of consecutive() and allow_combinations()"
            )
        return self._with(inside=inside)

    def until(self, condition: Condition[E]) -> Pattern[E]:
        """End a step without an upper bound at an event that meets ``condition``.

        That event is not taken.
        """
        if self.steps[-1].most is not None:
            raise ConfigError("until() goes with one_or_more() or times_or_more(), said before it")
        if self.steps[-1].until is not None:
            raise ConfigError("until() is said twice of one step: put both into one condition")
        return self._with(until=_test(condition, "until"))

    # -- time --------------------------------------------------------------------------------

    def within(self, seconds: Seconds, *, between: Between = "first_and_last") -> Pattern[E]:
        """Give a match so many seconds, without the last instant.

        Args:
            between: ``first_and_last``: for the whole match, whichever step it is said of;
                ``previous_and_current``: from the event before to the one of this step, which must
                be a plain step without ``times`` and its kin.
        """
        ms = milliseconds(seconds)
        if ms <= 0:
            raise ConfigError(f"within({seconds}): give a time above 0, in seconds")
        if between == "first_and_last":
            return self._with(within_ms=ms)
        return self._with(neighbours_ms=ms)

    def _positive(self, word: str) -> None:
        if self.steps[-1].contiguity in _NEGATIVE:
            raise ConfigError(
                f"{word}() cannot be said of {self.steps[-1].contiguity}"
                f"({self.steps[-1].name!r}): it takes no events"
            )

    # -- the whole ---------------------------------------------------------------------------

    def check(self) -> None:
        """Look at what can only be seen when the pattern is complete.

        Raises:
            ConfigError: it cannot be matched as it is.
        """
        last = self.steps[-1]
        if last.contiguity == "not_followed_by" and not (last.within_ms or last.neighbours_ms):
            raise ConfigError(
                f"not_followed_by({last.name!r}) at the end of a pattern needs within(seconds) "
                "behind it: when may it be sure that nothing follows?"
            )
        windows = [step.within_ms for step in self.steps if step.within_ms]
        for step in self.steps:
            if windows and step.neighbours_ms and step.neighbours_ms > min(windows):
                raise ConfigError(
                    f"step {step.name!r} gives two events more time than the whole match has: "
                    "make within(between='previous_and_current') the shorter one"
                )
        if self.skip.step and all(step.name != self.skip.step for step in self.steps):
            raise ConfigError(
                f"skip_to_{self.skip.to}({self.skip.step!r}): the pattern has no such step, it has "
                + ", ".join(step.name for step in self.steps)
            )

    def compiled(self) -> Automaton:
        """Return the automaton of this pattern."""
        self.check()
        return compile_steps(self.steps)

    def shape(self) -> int:
        """Return a number that changes when stored partial matches would lose their meaning."""
        return shape_of(self.steps)


def _step(before: tuple[Step, ...], name: str, contiguity: Contiguity) -> Step:
    """Make the step behind those ``before``."""
    if not name or ":" in name or "$" in name:
        raise ConfigError(f"step {name!r}: a name is some text without ':' and '$'")
    if any(name == step.name for step in before):
        raise ConfigError(f"there are two steps named {name!r}: matches tell them apart by it")
    if contiguity in _NEGATIVE and before[-1].optional:
        raise ConfigError(
            f"{contiguity}({name!r}) cannot follow the optional step {before[-1].name!r}: "
            "make two patterns, one with that step and one without it"
        )
    return Step(name, contiguity)


def _test(condition: Any, word: str) -> Test:
    """Find out whether a condition wants to see what was matched before."""
    if not callable(condition):
        raise ConfigError(f"{word}({condition!r}): give a function of the event")
    try:
        parameters = inspect.signature(condition).parameters.values()
    except (TypeError, ValueError):  # a builtin, which says nothing: it gets the event
        return Test(condition, iterative=False)
    positional = [
        each
        for each in parameters
        if each.kind in {each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD}
    ]
    needed = [each for each in positional if each.default is each.empty]
    if not positional or len(needed) > 2:  # noqa: PLR2004
        raise ConfigError(
            f"{word}({condition!r}): a condition takes (event), or (event, before) to see what "
            "was matched before"
        )
    return Test(condition, iterative=len(needed) == 2)  # noqa: PLR2004


def _both(one: Test, other: Test) -> Test:
    ask, also = one.ask, other.ask
    match one.iterative, other.iterative:
        case False, False:
            return Test(lambda event: ask(event) and also(event), iterative=False)
        case True, False:
            return Test(lambda event, before: ask(event, before) and also(event), iterative=True)
        case False, True:
            return Test(lambda event, before: ask(event) and also(event, before), iterative=True)
    return Test(lambda event, before: ask(event, before) and also(event, before), iterative=True)


def _either(one: Test, other: Test) -> Test:
    ask, also = one.ask, other.ask
    match one.iterative, other.iterative:
        case False, False:
            return Test(lambda event: ask(event) or also(event), iterative=False)
        case True, False:
            return Test(lambda event, before: ask(event, before) or also(event), iterative=True)
        case False, True:
            return Test(lambda event, before: ask(event) or also(event, before), iterative=True)
    return Test(lambda event, before: ask(event, before) or also(event, before), iterative=True)
