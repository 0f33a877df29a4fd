"""What an aggregate is: a field of a class that keeps a little of many events.

The kinds are in :mod:`engine.aggregates`, with an example. A class of them is a Struct with a
field for the state of each, so msgspec writes it as it is; the aggregates themselves are
descriptors, which read results from it.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Mapping
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Generic,
    NamedTuple,
    TypeGuard,
    TypeVar,
    cast,
    overload,
)  # fmt: skip

import msgspec

from engine.errors import ConfigError

if TYPE_CHECKING:
    from typing import Self

    from engine.table import Window

R = TypeVar("R")

RESERVED = frozenset({"Result", "add", "merge", "result"})

Getter = Callable[[Any], Any]
Step = Callable[[Any, Any], None]
Where = Callable[[Any], Any] | Mapping[str, Any]


class Kept(NamedTuple):
    """What is kept for a field, and how it changes.

    Attributes:
        type: the state's, for msgspec.
        empty: makes a state of no values.
        put: (state, value) -> state; it may change the state in place. The value is not None.
        join: (state, state) -> state, of both.
        read: state -> result.
        result: the result's type.
    """

    type: Any
    empty: Callable[[], Any]
    put: Callable[[Any, Any], Any]
    join: Callable[[Any, Any], Any]
    read: Callable[[Any], Any] | None = None
    result: Any = Any


class Aggregate(Generic[R]):
    """One field of :class:`Aggregates`. Read from an object it is the result, of type ``R``.

    Args:
        of: the event's field (``"value"`` or ``RawEvent.value``) or a function of the event; None:
            the event itself.
        where: only these events: ``{"event_type": "purchase"}`` (all must be equal) or a function.
    """

    def __init__(self, of: Any, kept: Kept, *, where: Where | None = None) -> None:
        self.of = of
        self.kept = kept
        self.where = where
        self.name = self.slot = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name, self.slot = name, f"{name}_"

    @overload
    def __get__(self, totals: None, owner: type) -> Self: ...
    @overload
    def __get__(self, totals: Aggregates, owner: type) -> R: ...
    def __get__(self, totals: Aggregates | None, owner: type) -> Any:
        if totals is None:
            return self
        state = getattr(totals, self.slot)
        return state if self.kept.read is None else self.kept.read(state)

    def getter(self, field: Callable[[str], Getter]) -> Getter:
        """Return what takes the value out of an event.

        Args:
            field: makes what takes a field of that name out of it.
        """
        return getter_of(self.of, field)

    def step(self, field: Callable[[str], Getter]) -> Step:
        """Return what changes an object by an event; ``field`` as for :meth:`getter`."""
        slot, put, get = self.slot, self.kept.put, self.getter(field)

        def change(totals: Any, event: Any) -> None:
            value = get(event)
            if value is not None:
                setattr(totals, slot, put(getattr(totals, slot), value))

        return change if self.where is None else _filtered(change, self.where, field)

    def counts_nulls(self) -> bool:
        """Say whether an event that is None changes the state."""
        return False


def _filtered(change: Step, where: Where, field: Callable[[str], Getter]) -> Step:
    fits = where if callable(where) else _equal(where, field)

    def change_some(totals: Any, event: Any) -> None:
        if fits(event):
            change(totals, event)

    return change_some


def _equal(wanted: Mapping[str, Any], field: Callable[[str], Getter]) -> Callable[[Any], Any]:
    if len(wanted) == 1:
        ((name, value),) = wanted.items()
        get = field(name)
        return lambda event: get(event) == value
    pairs = [(field(name), value) for name, value in wanted.items()]
    return lambda event: all(get(event) == value for get, value in pairs)


def getter_of(of: Any, field: Callable[[str], Getter]) -> Getter:
    """Return what takes a value out of an event: a field, or what a function makes of it.

    Raises:
        ConfigError: it is neither.
    """
    if of is None:
        return _itself
    if isinstance(of, str):
        return field(of)
    if hasattr(of, "__get__") and not inspect.isroutine(of):  # a Struct's field
        return field(of.__name__)
    if not callable(of):
        raise ConfigError(f"an aggregate is of a field or a function, not of {of!r}")
    return cast(Getter, of)


def _itself(event: Any) -> Any:
    return event


def _item(name: str) -> Getter:
    """Return what takes a field out of an event without a type, which is a dict."""
    return lambda event: event.get(name)


class _Meta(msgspec.StructMeta):
    """Gives each aggregate of a class a field in which its state is kept."""

    def __new__(
        mcs, name: str, bases: tuple[type, ...], space: dict[str, Any], **config: Any
    ) -> Any:
        own = {key: each for key, each in space.items() if isinstance(each, Aggregate)}
        if bases != (msgspec.Struct,):
            if space.get("__annotations__") or RESERVED & own.keys():
                raise ConfigError(
                    f"{name}: every field is an aggregate (events = Count()), and none is named "
                    f"{', '.join(sorted(RESERVED))}"
                )
            for key, each in own.items():
                space[f"{key}_"] = msgspec.field(default_factory=each.kept.empty)
            space["__annotations__"] = {f"{key}_": each.kept.type for key, each in own.items()}
        made: Any = super().__new__(mcs, name, bases, space, **config)
        _prepare(made, (*getattr(made, "__aggregates__", ()), *own.values()))
        return made


def _prepare(made: Any, aggregates: tuple[Aggregate[Any], ...]) -> None:
    """Give a class what its objects need once an event, and the type of its results."""
    made.__aggregates__ = aggregates
    made.__steps__ = tuple(each.step(operator.attrgetter) for each in aggregates)
    made.__dict_steps__ = tuple(each.step(_item) for each in aggregates)
    made.__null_steps__ = tuple(
        each.step(operator.attrgetter) for each in aggregates if each.counts_nulls()
    )
    fields = [(each.name, each.kept.result) for each in aggregates]
    made.Result = msgspec.defstruct(f"{made.__name__}Result", fields, frozen=True)


class Aggregates(msgspec.Struct, metaclass=_Meta, array_like=True, gc=False):
    """Several aggregates of the same events; see the module.

    Attributes:
        Result: a Struct of the results by name, which is what a windowed table emits.
    """

    __aggregates__: ClassVar[tuple[Aggregate[Any], ...]]
    __steps__: ClassVar[tuple[Step, ...]]
    __dict_steps__: ClassVar[tuple[Step, ...]]
    __null_steps__: ClassVar[tuple[Step, ...]]
    Result: ClassVar[type[Any]]

    def add(self, event: Any) -> Self:
        """Take one more event; return the same object."""
        if type(event) is dict:
            steps = self.__dict_steps__
        elif event is None:
            steps = self.__null_steps__
        else:
            steps = self.__steps__
        for step in steps:
            step(self, event)
        return self

    def merge(self, other: Self) -> Self:
        """Take what ``other`` has taken, which is not to be used any more; return the object."""
        for each in self.__aggregates__:
            slot = each.slot
            setattr(self, slot, each.kept.join(getattr(self, slot), getattr(other, slot)))
        return self

    def result(self) -> Any:
        """Return all results, as a ``Result``."""
        return self.Result(*(getattr(self, each.name) for each in self.__aggregates__))


def is_aggregates(kind: Any) -> TypeGuard[type[Aggregates]]:
    """Say whether a table's value type is a class of aggregates."""
    return isinstance(kind, _Meta)


def result_of(kind: type[Aggregates], record: Any) -> Callable[[Any, Window, Any], Any]:
    """Return what makes the record of (key, window, totals) that a windowed table emits.

    Args:
        record: the Struct that the sink's contract says; its fields are filled by name: a result,
            the window's ``start`` and ``end`` (ms), a field of the key (or the key itself, where it
            has no fields). No Struct: it is ``kind.Result``.
    """
    if not isinstance(record, type) or not issubclass(record, msgspec.Struct):
        return _bare_result
    names = {each.name for each in kind.__aggregates__}
    fields = record.__struct_fields__

    def part(name: str) -> Callable[[Any, Any, Any], Any]:
        if name in names:
            return lambda _key, _window, totals: getattr(totals, name)
        if name in {"start", "end"}:
            return lambda _key, window, _totals: getattr(window, name)
        return lambda key, _window, _totals: (
            getattr(key, name) if isinstance(key, msgspec.Struct) else key
        )

    parts = [part(name) for name in fields]
    return lambda key, window, totals: record(*(each(key, window, totals) for each in parts))


def _bare_result(_key: Any, _window: Any, totals: Aggregates) -> Any:
    return totals.result()
