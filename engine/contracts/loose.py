r"""Patterns checked by the batch: a Struct is decoded without them, and each text is matched once.

msgspec runs a field's ``pattern`` through Python's ``re``, for each record again: half of the time
that decoding an event of the main job takes (2.2 us with ``^user_\d+$``, 1.1 without). Keys and
names come again and again, so a batch is decoded as a *twin* of its type that has no patterns, and
of each such field only the texts that were not seen before are matched. What does not match is
decoded again, strictly, so that it is refused in msgspec's own words.

The twin's events then become the declared type's by assignment to ``__class__``, which CPython
allows where the layouts are the same. Where they cannot be, or where a type says more than its
fields do (``__post_init__``), there is no twin, and msgspec does it all.
"""

from __future__ import annotations

import inspect
import operator
import re
from collections.abc import Callable, Sequence
from itertools import filterfalse
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec

KNOWN_TEXTS = 100_000
"""Of a field, so many texts that match are remembered."""


class Column:
    """One field with a pattern.

    Attributes:
        known: texts that match, ``most`` of them or one batch's.
    """

    __slots__ = ("_matches", "get", "known", "most")

    def __init__(self, field: str, pattern: str, most: int = KNOWN_TEXTS) -> None:
        self.get = operator.attrgetter(field)
        self.most = most
        self.known: set[str] = set()
        self._matches = re.compile(pattern).search

    def breaking(self, events: Sequence[Any]) -> list[int]:
        """Return the indexes of the events whose text does not match."""
        new = set(filterfalse(self.known.__contains__, map(self.get, events)))
        if not new:
            return []
        bad = {text for text in new if self._matches(text) is None}
        if len(self.known) + len(new) > self.most:
            self.known.clear()
        self.known |= new - bad
        if not bad:
            return []
        return [index for index, text in enumerate(map(self.get, events)) if text in bad]


class Loose:
    """Decodes JSON as a Struct type without its patterns, and checks these by the batch."""

    __slots__ = ("_columns", "_type", "decode")

    def __init__(self, declared: type, twin: type, patterns: dict[str, str]) -> None:
        self.decode: Callable[[bytes], Any] = msgspec.json.Decoder(twin).decode
        self._type = declared
        self._columns = [Column(field, pattern) for field, pattern in patterns.items()]

    def settle(self, events: Sequence[Any], *, nulls: bool) -> list[int]:
        """Make the decoded events ones of the declared type; return which break a pattern.

        Args:
            events: as :attr:`decode` made them, and None for a tombstone.
            nulls: whether there may be tombstones.
        """
        places = None
        if nulls and None in events:
            places = [index for index, event in enumerate(events) if event is not None]
            events = [events[index] for index in places]
        bad: set[int] = set()
        for column in self._columns:
            bad.update(column.breaking(events))
        declared = self._type
        for event in events:
            event.__class__ = declared
        return sorted(bad if places is None else (places[index] for index in bad))


def loose(value_type: Any) -> Loose | None:
    """Return how to decode a type without its patterns, if it has some and it can be done."""
    if not (isinstance(value_type, type) and issubclass(value_type, msgspec.Struct)):
        return None
    names = {field.name for field in msgspec.structs.fields(value_type)}
    own = names.intersection(inspect.get_annotations(value_type))
    hints = get_type_hints(value_type, include_extras=True)
    patterns = {name: found for name in sorted(own) if (found := _pattern(hints[name]))}
    if not patterns or not _is_plain(value_type):
        return None
    fields = {name: _without(hint) for name, hint in hints.items() if name in own}
    twin = _twin(value_type, fields)
    return None if twin is None else Loose(value_type, twin, patterns)


def _is_plain(declared: type[msgspec.Struct]) -> bool:
    """Say whether a type is no more than its fields and options: making it anew has no effects."""
    extras = {"__post_init__", "__init_subclass__"}
    added = any(extras.intersection(vars(base)) for base in declared.__mro__[:-2])
    return type(declared) is type(msgspec.Struct) and not added and not _caches_hash(declared)


def _caches_hash(declared: type[msgspec.Struct]) -> bool:
    return bool(getattr(declared.__struct_config__, "cache_hash", False))


def _pattern(hint: Any) -> str | None:
    """Return the pattern of a plain text."""
    if get_origin(hint) is Annotated and get_args(hint)[0] is str:
        for meta in hint.__metadata__:
            if isinstance(meta, msgspec.Meta) and meta.pattern is not None:
                return meta.pattern
    return None


def _without(hint: Any) -> Any:
    """Return a text's type without its pattern, and any other as it is."""
    if _pattern(hint) is None:
        return hint
    rest = [
        msgspec.Meta(min_length=meta.min_length, max_length=meta.max_length)
        for meta in hint.__metadata__
        if isinstance(meta, msgspec.Meta) and (meta.min_length, meta.max_length) != (None, None)
    ]
    return Annotated[(str, *rest)] if rest else str


def _twin(declared: type[msgspec.Struct], hints: dict[str, Any]) -> type[msgspec.Struct] | None:
    """Return a type with these fields whose events can become ones of the declared type."""
    config = declared.__struct_config__
    defaults = {field.name: field for field in msgspec.structs.fields(declared)}
    fields: list[Any] = []
    for name, hint in hints.items():
        field = defaults[name]
        if field.default is not msgspec.NODEFAULT:
            fields.append((name, hint, field.default))
        elif field.default_factory is not msgspec.NODEFAULT:
            fields.append((name, hint, msgspec.field(default_factory=field.default_factory)))
        else:
            fields.append((name, hint))
    names = {f.name: f.encode_name for f in defaults.values() if f.encode_name != f.name}
    try:
        twin = msgspec.defstruct(
            declared.__name__,
            fields,
            bases=declared.__bases__,
            frozen=False,
            rename=names or None,
            tag_field=config.tag_field,
            tag=config.tag,
            **{option: getattr(config, option) for option in _SAME},
        )
        sample = twin(**{name: name for name in defaults})
        sample.__class__ = declared
    except TypeError:  # another layout, or a type that cannot be made anew
        return None
    return twin if all(getattr(sample, name) == name for name in defaults) else None


_SAME = ("eq", "order", "array_like", "gc", "weakref", "dict", "forbid_unknown_fields")
