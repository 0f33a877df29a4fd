"""A replay's two files: recorded records in, and what an app made of them out."""

from __future__ import annotations

import base64
import binascii
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import msgspec

from engine.cli.command import Failure
from engine.results import WINDOW_HEADER
from engine.task import END_MARK

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from engine.record import TP, Headers, Output
    from engine.testing import Driver
    from engine.testing.driver import Sent
    from engine.topic import Topic

_NULL = msgspec.Raw(b"null")
_TEXT_TYPES = (str, bytes)
_Int64 = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]


class Line(msgspec.Struct, frozen=True):
    """A line of the file that goes in; key and value are what the line says, byte for byte."""

    topic: str
    timestamp: _Int64
    key: msgspec.Raw = _NULL
    value: msgspec.Raw = _NULL
    headers: dict[str, Any] | list[tuple[str, Any]] | None = None


class Recorder:
    """Puts records into a driver and writes down what becomes visible.

    Attributes:
        taken: records that went in.
        written: records that came out, ``dead_letters`` among them.
        foreign: how many records there were of each topic that the app does not read.
    """

    def __init__(self, driver: Driver, results: BinaryIO) -> None:
        self.taken = self.written = self.dead_letters = 0
        self.foreign: Counter[str] = Counter()
        self._driver = driver
        self._results = results
        self._seen = len(driver.broker.order)
        topology = driver.app.topology()
        self._topics = dict(topology.topics)
        self._inputs = topology.inputs
        self._letters = {topic.dead_letters for topic in self._inputs.values()}
        self._hidden = {name for name, topic in self._topics.items() if topic.internal}

    # -- in ----------------------------------------------------------------------------------

    def records(self, lines: Iterable[bytes], path: Path) -> Iterator[Sent]:
        """Read the records that the app takes.

        Raises:
            Failure: a line is not a record; the message says which, and what is wrong.
        """
        decode = msgspec.json.Decoder(Line).decode
        for number, raw in enumerate(lines, 1):
            if not raw.strip():
                continue
            try:
                line = decode(raw)
                topic = self._inputs.get(line.topic)
                if topic is not None:
                    yield _sent(line, topic)
            except (ValueError, TypeError, binascii.Error) as error:
                raise Failure(f"{path}, line {number}: {error}") from error
            except RecursionError as error:
                raise Failure(f"{path}, line {number}: nested too deeply") from error
            if topic is None:
                self.foreign[line.topic] += 1

    def put(self, records: Iterable[Sent]) -> bool:
        """Let the app work on records, one by one, and write what follows; False: none came."""
        before = self.taken
        self._driver.pipe_each(self._counted(records))
        self.write_new()
        return self.taken > before

    def _counted(self, records: Iterable[Sent]) -> Iterator[Sent]:
        for record in records:
            self.taken += 1
            self._hidden.add(record[0])
            yield record

    # -- out ---------------------------------------------------------------------------------

    def write_new(self) -> None:
        """Write every record that has become visible since the last time, inputs aside."""
        encode = msgspec.json.Encoder().encode
        for tp, output in self._new():
            self._results.write(encode(self._row(tp, output)) + b"\n")
            self.written += 1

    def _new(self) -> Iterator[tuple[TP, Output]]:
        broker = self._driver.broker
        start, self._seen = self._seen, len(broker.order)
        for tp, offset in broker.order[start:]:
            output = broker.logs[tp][offset]
            if tp.topic in self._hidden or output is None:
                continue
            if not any(name == END_MARK for name, _ in output[3]):
                yield tp, output

    def _row(self, tp: TP, output: Output) -> dict[str, Any]:
        key, value, timestamp, headers = output
        topic = self._topic(tp.topic)
        row: dict[str, Any] = {"topic": tp.topic}
        if tp.topic in self._letters:  # as it came: whatever it is
            self.dead_letters += 1
            row |= {"key": _text(key), "value": _text(value), "timestamp": timestamp}
        else:
            row |= {"key": _key(topic, key), "value": _value(topic, value), "timestamp": timestamp}
        kept = [(name, _text(raw)) for name, raw in headers if name != WINDOW_HEADER]
        if kept:
            row["headers"] = dict(kept) if len(dict(kept)) == len(kept) else kept
        for name, bounds in headers:
            if name == WINDOW_HEADER:
                start, end = map(int, bounds.split(b","))
                row["window"] = {"start": start, "end": end}
        return row

    def _topic(self, name: str) -> Topic:
        topic = self._topics.get(name)
        if topic is None:  # an agent sent to it by name
            topic = self._topics[name] = self._driver.topic(name)
        return topic


def _sent(line: Line, topic: Topic) -> Sent:
    return (topic.name, _key_bytes(topic, bytes(line.key)), _value_bytes(topic, bytes(line.value)),
            line.timestamp, _header_bytes(line))  # fmt: skip


def _key_bytes(topic: Topic, raw: bytes) -> bytes | None:
    """Return a recorded key as bytes: text as it is, a key of several fields by its codec."""
    kind = topic.contract.key_type
    value = msgspec.json.decode(raw)
    match value:
        case None | str():
            return None if value is None else value.encode()
        case {"base64": str(encoded)} if len(value) == 1:
            return base64.b64decode(encoded, validate=True)
        case _ if kind in {None, str, bytes, int}:
            return raw
        case _:
            return topic.encode_key(msgspec.convert(value, kind))


def _value_bytes(topic: Topic, raw: bytes) -> bytes | None:
    """Return a recorded value as bytes: JSON as it stands, a string's text without its quotes."""
    if raw == b"null":
        return None
    if raw.startswith(b'"'):
        takes_any = topic.contract.value_type in {None, Any}
        return raw if takes_any else msgspec.json.decode(raw, type=str).encode()
    if raw.startswith(b"{") and b'"base64"' in raw:
        value = msgspec.json.decode(raw)
        if len(value) == 1 and isinstance(value.get("base64"), str):
            return base64.b64decode(value["base64"], validate=True)
    return raw


def _header_bytes(line: Line) -> Headers:
    given = line.headers or ()
    pairs = given.items() if isinstance(given, dict) else given
    return tuple((name, _header(value)) for name, value in pairs)


def _header(value: Any) -> bytes:
    match value:
        case str():
            return value.encode()
        case {"base64": str(encoded)}:
            return base64.b64decode(encoded, validate=True)
        case _:
            raise TypeError("a header's value must be text")


def _text(value: bytes | None) -> Any:
    """Return bytes as text, where they are text."""
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}


def _key(topic: Topic, raw: bytes | None) -> Any:
    if raw is None:
        return None
    try:
        key = topic.key.decode(raw)
    except ValueError:  # made by another codec than this topic's: a window's, say
        return _text(raw)
    return _text(key) if isinstance(key, bytes) else key


def _value(topic: Topic, raw: bytes | None) -> Any:
    """Return a value as JSON: what is JSON on the topic as it stands there, all else as text."""
    if raw is None or topic.contract.value_type in _TEXT_TYPES:
        return _text(raw)
    try:
        return msgspec.Raw(msgspec.json.format(raw, indent=-1))  # on one line
    except msgspec.DecodeError:
        return _text(raw)
