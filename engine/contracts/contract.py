"""A topic's contract: the Struct, the rules with names and severities, owner and version.

A msgspec Struct with constraints declares one today (:meth:`Contract.of`). A contract file will
compile to the same object: nothing downstream looks at anything but this class. Structural and
value rules run inside msgspec's decoder; what it cannot say (across fields, across records) is a
:class:`Rule` with a ``check`` over the decoded batch.

A violation names the rule and the field, never the value: dead letters and logs must not carry
personal data that the raw record did not carry already.
"""

from __future__ import annotations

import operator
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from engine.contracts.eventtime import Unit, extractor, field_getter
from engine.contracts.limits import Gauge, Limits, Violation, is_deep
from engine.contracts.loose import Loose, loose
from engine.contracts.patterns import text_limits
from engine.contracts.violations import violation_of
from tables.codec import key_codec

if TYPE_CHECKING:
    from engine.record import Headers

Severity = Literal["error", "warning"]


class Rule(msgspec.Struct, frozen=True):
    """One rule. Breaking it dead-letters the record (``error``) or is only counted (``warning``).

    Attributes:
        name: what headers and metrics call it, e.g. ``value.range``.
        check: returns the indexes of the events that break it; None: the decoder enforces it. An
            event on which it raises breaks it too. It is not asked about tombstones.
    """

    name: str
    severity: Severity = "error"
    description: str = ""
    check: Callable[[Sequence[Any]], Iterable[int]] | None = None


class Checked(msgspec.Struct):
    """A batch after the check: what is good, and what is not.

    Attributes:
        events: the decoded values of the good records.
        kept: their indexes in the batch; None when all are good.
        broken: (index in the batch, violation) of each record that is refused.
        warned: counts by rule of warnings.
        times: when the events happened (ms), 0 for a tombstone; None: they do not say.
    """

    events: list[Any]
    times: list[int] | None = None
    kept: list[int] | None = None
    broken: list[tuple[int, Violation]] = []
    warned: dict[str, int] = {}


class Contract(msgspec.Struct, frozen=True, kw_only=True):
    """What a topic promises.

    Attributes:
        decode: bytes to an event; raises ValueError (or RecursionError) for what breaks the rules.
        encode: an event to bytes.
        key_type: str, int, bytes, a Struct, or None for "whatever it is".
        key_required: a record without a key breaks the rule ``key.required``.
        key_field: the field of the value that an emitted record is keyed by; None keeps the key.
        null_values: tombstones are part of the contract (compacted topics).
        event_time: takes an event, returns its time in ms; None: the record's timestamp.
        gauge: looks at records before they are decoded.
        loose: decodes faster than ``decode``, and checks patterns by the batch.
    """

    name: str
    version: str = "1"
    owner: str = ""
    value_type: Any = None
    decode: Callable[[bytes], Any]
    encode: Callable[[Any], bytes]
    rules: tuple[Rule, ...] = ()
    key_type: Any = None
    key_required: bool = False
    key_field: Callable[[Any], Any] | None = None
    null_values: bool = False
    event_time: Callable[[Any], int] | None = None
    gauge: Gauge = Gauge.of(Limits())
    loose: Loose | None = None

    @classmethod
    def of(  # noqa: PLR0913
        cls,
        name: str,
        value_type: Any = None,
        *,
        version: str = "1",
        owner: str = "",
        rules: Iterable[Rule] = (),
        key_type: Any = None,
        key_required: bool = False,
        key_field: str | None = None,
        null_values: bool = False,
        event_time: str | Callable[[Any], int] | None = None,
        time_unit: Unit = "ms",
        limits: Limits = Limits(),  # noqa: B008  frozen
    ) -> Contract:
        """Declare a contract by a type.

        Args:
            value_type: a Struct (its ``Meta`` constraints are the rules), any other type msgspec
                knows, ``bytes`` (taken as they are), ``str`` (UTF-8 text), None (any JSON).
            event_time: the field that holds the event's time, or a function of the event.
            time_unit: of that time: ``s``, ``ms``, ``us`` or ``ns``; a ``datetime`` has its own.
            key_field: the field that an emitted record is keyed by.

        Raises:
            ConfigError: a pattern of the type could hang the loop.
        """
        decode, encode = value_functions(value_type)
        time_of = extractor(event_time, time_unit, value_type)
        return cls(
            name=name,
            version=version,
            owner=owner,
            value_type=value_type,
            decode=decode,
            encode=encode,
            rules=(*structural_rules(value_type), *rules, *((_TIME_RANGE,) if time_of else ())),
            key_type=key_type,
            key_required=key_required,
            key_field=field_getter(value_type, key_field, "key_field") if key_field else None,
            null_values=null_values,
            event_time=time_of,
            gauge=Gauge.of(limits, text_limits(name, value_type), deep=is_deep(value_type)),
            loose=loose(value_type),
        )

    def check(
        self,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        headers: Sequence[Headers] = (),
        largest: int | None = None,
    ) -> Checked:
        """Decode and check a whole batch.

        Args:
            largest: no value has more bytes; None: nobody has measured them.

        One decoder call a record: measured, it is as fast as decoding the batch as one joined JSON
        array (1.32 against 1.54 us a record), and a broken record spoils nothing but itself.
        """
        events, broken = self._decode_all(values, largest)
        if any(headers):
            _refuse_each(self.gauge.crowded(headers), events, broken)
        try:
            joined = b"\0".join(keys)  # type: ignore[arg-type]  # all at once: nothing, usually
        except TypeError:  # some have none
            joined = b"\0".join(filter(None, keys))
            if self.key_required:
                _refuse([i for i, key in enumerate(keys) if key is None], _NO_KEY, events, broken)
        if len(joined) > self.gauge.limits.record_bytes:
            _refuse_each(self.gauge.heavy_keys(keys), events, broken)
        if not (self.key_type is str and _is_text(joined)):
            _refuse(_foreign_keys(self.key_type, keys), _FOREIGN_KEY, events, broken)
        checked = Checked(events, broken=broken)
        if broken:
            refused = {index for index, _ in broken}
            checked.kept = [index for index in range(len(values)) if index not in refused]
        for rule in self.rules:
            if rule.check is not None:
                _apply(rule, checked, nulls=self.null_values)
        if self.event_time is not None:
            self._tell_times(checked, self.event_time)
        return checked

    def _tell_times(self, checked: Checked, time_of: Callable[[Any], int]) -> None:
        """Take the times from the events, and refuse what is none: Kafka cannot carry it."""
        events = checked.events
        nulls = self.null_values and None in events
        try:
            if nulls:
                times = [0 if event is None else time_of(event) for event in events]
            else:
                times = list(map(time_of, events))
            good = not times or 0 <= min(times) <= max(times) <= LATEST_MS
        except Exception:  # noqa: BLE001  some field is null, or a user's function stumbles
            good = False
        if not good:
            times = [0 if nulls and event is None else _time(time_of, event) for event in events]
            wrong = [index for index, time in enumerate(times) if time == _NO_TIME]
            _take_out(_TIME_RANGE, set(wrong), checked)
            times = [time for time in times if time != _NO_TIME]
        checked.times = times

    def _decode_all(
        self, values: Sequence[bytes | None], largest: int | None
    ) -> tuple[list[Any], list[tuple[int, Violation]]]:
        """Return the events, and what is wrong with the others."""
        heavy = self.gauge.heavy_values(values, largest)
        if not heavy:
            return self._decode_each(values, range(len(values)))
        places = [index for index in range(len(values)) if index not in heavy]
        events, broken = self._decode_each([values[index] for index in places], places)
        return events, sorted([*heavy.items(), *broken], key=operator.itemgetter(0))

    def _decode_each(
        self, values: Sequence[bytes | None], places: Sequence[int]
    ) -> tuple[list[Any], list[tuple[int, Violation]]]:
        """Return the events, and what is wrong with the others, by their place in the batch.

        ``extend`` keeps what came before a value that raises, and goes on behind it: no line of
        Python is run for a good record.
        """
        decode: Callable[[Any], Any] = (self.loose or self).decode
        events: list[Any] = []
        broken: list[tuple[int, Violation]] = []
        rest = map(decode, values)
        while True:
            try:
                events.extend(rest)
            except (ValueError, TypeError, RecursionError) as error:
                index = len(events) + len(broken)
                value = values[index]
                if value is None and self.null_values:
                    events.append(None)
                else:
                    broken.append((places[index], self._violation(value, error)))
            else:
                break
        if self.loose is not None and (bad := self.loose.settle(events, nulls=self.null_values)):
            self._refuse_texts(bad, values, places, events, broken)
        return events, broken

    def _violation(self, value: bytes | None, error: Exception) -> Violation:
        """Name the first fault of a record, as its type has it with its patterns."""
        if self.loose is not None and value is not None:
            try:
                self.decode(value)
            except (ValueError, TypeError, RecursionError) as strict:
                return violation_of(value, strict)  # kept in a variable, it would hold the batch
        return violation_of(value, error)

    def _refuse_texts(
        self,
        bad: list[int],
        values: Sequence[bytes | None],
        places: Sequence[int],
        events: list[Any],
        broken: list[tuple[int, Violation]],
    ) -> None:
        """Take the events with these indexes out again: they break a pattern."""
        gone = {place for place, _ in broken}
        decoded = [index for index, place in enumerate(places) if place not in gone]
        for each in reversed(bad):
            index = decoded[each]
            del events[each]
            broken.append((places[index], self._violation(values[index], _NO_ERROR)))
        broken.sort(key=operator.itemgetter(0))


_NO_ERROR = ValueError("breaks a pattern")


LATEST_MS = 253_402_300_799_999
"""The last millisecond of the year 9999. What claims to be later, or before 1970, is no time."""


_TIME_RANGE = Rule("event_time.range", description="not a time from 1970 to 9999")
"""The rule that an event's time is one (:meth:`Contract._tell_times`)."""

_NO_TIME = -1


def _time(time_of: Callable[[Any], int], event: Any) -> int:
    """Return when an event happened, or that it does not say."""
    try:
        time = time_of(event)
        good = 0 <= time <= LATEST_MS
    except Exception:  # noqa: BLE001  whatever it is, the event is to blame and not the worker
        return _NO_TIME
    return time if good else _NO_TIME


_NO_KEY = Violation("key.required", "key", "the record has no key")
_FOREIGN_KEY = Violation("key.type", "key", "the key is not of its type")


def _is_text(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _foreign_keys(key_type: Any, keys: Sequence[bytes | None]) -> list[int]:
    """Return the indexes of the keys that cannot be decoded."""
    if key_type is None or key_type is bytes:
        return []
    decode = key_codec(key_type).decode
    foreign = []
    for index, key in enumerate(keys):
        try:
            if key is not None:
                decode(key)
        except (ValueError, RecursionError):  # the latter: where its type leaves the nesting open
            foreign.append(index)
    return foreign


def _refuse(
    guilty: list[int], violation: Violation, events: list[Any], broken: list[tuple[int, Violation]]
) -> None:
    """Take the events with these indexes out again, and name their fault, if it is their first."""
    if not guilty:
        return
    refused = {index for index, _ in broken}
    found = [index for index in guilty if index not in refused]
    skipped = sorted(refused)
    for index in reversed(found):
        del events[index - bisect_left(skipped, index)]
    broken.extend((index, violation) for index in found)
    broken.sort(key=operator.itemgetter(0))


def _refuse_each(
    found: dict[int, Violation], events: list[Any], broken: list[tuple[int, Violation]]
) -> None:
    for index, violation in found.items():
        _refuse([index], violation, events, broken)


def _apply(rule: Rule, checked: Checked, *, nulls: bool) -> None:
    """Run a rule that needs the decoded batch."""
    assert rule.check is not None
    guilty = _guilty(rule.check, checked.events, nulls=nulls)
    if not guilty:
        return
    if rule.severity == "warning":
        checked.warned[rule.name] = checked.warned.get(rule.name, 0) + len(guilty)
    else:
        _take_out(rule, guilty, checked)


def _guilty(
    check: Callable[[Sequence[Any]], Iterable[int]], events: Sequence[Any], *, nulls: bool
) -> set[int]:
    """Return which events break a rule. A tombstone breaks none; one that a rule raises on does."""
    places: Sequence[int] = range(len(events))
    if nulls and None in events:
        places = [index for index in places if events[index] is not None]
        events = [events[index] for index in places]
    try:
        found = set(check(events))
    except Exception:  # noqa: BLE001  the event is to blame: no record may stop a worker
        found = {index for index, event in enumerate(events) if _breaks(check, event)}
    return {places[index] for index in found}


def _breaks(check: Callable[[Sequence[Any]], Iterable[int]], event: Any) -> bool:
    try:
        return bool(set(check([event])))
    except Exception:  # noqa: BLE001  see above
        return True


def _take_out(rule: Rule, guilty: set[int], checked: Checked) -> None:
    """Refuse the events with these indexes."""
    kept = checked.kept if checked.kept is not None else list(range(len(checked.events)))
    field = rule.name.partition(".")[0]
    violation = Violation(rule.name, field, rule.description or f"breaks {rule.name}")
    checked.broken = sorted(
        [*checked.broken, *((kept[i], violation) for i in guilty)], key=operator.itemgetter(0)
    )
    checked.kept = [index for i, index in enumerate(kept) if i not in guilty]
    checked.events = [event for i, event in enumerate(checked.events) if i not in guilty]


def value_functions(value_type: Any) -> tuple[Callable[[bytes], Any], Callable[[Any], bytes]]:
    """Return (decode, encode) for values of a type: JSON, except for bytes and str."""
    if value_type is bytes:
        return _same, _same
    if value_type is str:
        return bytes.decode, str.encode
    encode = msgspec.json.Encoder().encode
    if value_type is None:
        return msgspec.json.Decoder().decode, encode
    return msgspec.json.Decoder(value_type).decode, encode


def _same(value: bytes) -> bytes:
    if value is None:
        raise TypeError("null value")
    return value


def structural_rules(value_type: Any) -> tuple[Rule, ...]:
    """List the rules that a Struct's own annotations make, for display and for metrics."""
    if not (isinstance(value_type, type) and issubclass(value_type, msgspec.Struct)):
        return (Rule("json", description="the value is valid JSON"),)
    rules = [Rule("json", description="the value is valid JSON")]
    info = msgspec.inspect.type_info(value_type)
    assert isinstance(info, msgspec.inspect.StructType)
    for field in info.fields:
        name = field.encode_name
        if field.required:
            rules.append(Rule(f"{name}.required", description=f"{name} is there"))
        rules.append(Rule(f"{name}.type", description=type(field.type).__name__))
        for attribute, kind in _CONSTRAINTS:
            bound = getattr(field.type, attribute, None)
            if bound is not None:
                rules.append(Rule(f"{name}.{kind}", description=f"{attribute} {bound}"))
        if isinstance(field.type, msgspec.inspect.LiteralType | msgspec.inspect.EnumType):
            rules.append(Rule(f"{name}.enum", description="one of the allowed values"))
    return tuple(rules)


_CONSTRAINTS = (
    ("ge", "range"),
    ("gt", "range"),
    ("le", "range"),
    ("lt", "range"),
    ("multiple_of", "range"),
    ("pattern", "pattern"),
    ("min_length", "length"),
    ("max_length", "length"),
)
