"""Read files as records: JSON lines, CSV, access logs; plain or gzip, in bounded memory.

A row this module cannot turn into a record (too long, not a row of its format) is handed to the
caller as a `BadLine`; what a record says is the contract's to judge, so a JSON line passes as it
stands.
"""

import csv
import datetime as dt
import gzip
import re
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple, NoReturn, cast

import msgspec

from engine.connect.accesslog import parse_log_line

FileFormat = Literal["jsonl", "csv", "access-log"]

MAX_LINE_BYTES = 1 << 20

_EXTENSIONS: dict[str, FileFormat] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"}
_CHUNK = 1 << 16
_BOM = b"\xef\xbb\xbf"
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?", re.ASCII)
_LONGEST_NUMBER = 40
_INT64 = range(-(1 << 63), 1 << 63)
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class FileFormatError(Exception):
    """A file, or a line of it, cannot be read as what it should be; one sentence says why."""


class Line(NamedTuple):
    """A record read from a file."""

    number: int
    """The line it starts on, from 1."""
    position_bytes: int
    """Where the next record starts in the (unpacked) file: what is read and done with."""
    key: bytes | None
    value: bytes
    timestamp_ms: int | None


class BadLine(NamedTuple):
    """A line that gave no record."""

    number: int
    position_bytes: int
    reason: str


class ReadOptions(msgspec.Struct, frozen=True):
    """How to read a file.

    Attributes:
        format: What the file is; None looks at its name and first line.
        key_field: The field whose value becomes the record's key. Text is taken as it is, a
            whole number as its digits; a record without one has no key.
        time_field: The field that holds the record's time: milliseconds since 1970, as a number
            or as digits, or an ISO 8601 date (UTC unless it says otherwise). A record without
            one has no timestamp.
        typed: CSV only: fields that read as JSON numbers become numbers; else all are text.
        max_line_bytes: A longer line (or CSV row) is reported and never held in memory. A CSV
            field is held to the csv module's own limit, 128 Ki characters.
    """

    format: FileFormat | None = None
    key_field: str | None = None
    time_field: str | None = None
    typed: bool = False
    max_line_bytes: int = MAX_LINE_BYTES


class _RawLine(NamedTuple):
    number: int
    position: int
    data: bytes | None
    """Without its line end; None when the line is overlong."""


def detect_format(path: Path) -> FileFormat:
    """Tell a file's format from its name, ``.gz`` aside, or else from its first line.

    Raises:
        FileFormatError: The file cannot be opened, or is none of the formats.
    """
    name = path.name.removesuffix(".gz")
    by_name = _EXTENSIONS.get(Path(name).suffix.lower())
    with _opened(path) as stream:
        first = _first_line(stream, path)
    if by_name is not None:
        return by_name
    if first.startswith(b"{"):
        return "jsonl"
    if parse_log_line(first) is not None:
        return "access-log"
    if first.startswith(b"["):
        raise FileFormatError(f"{path} holds a JSON array: write one object a line instead.")
    raise FileFormatError(
        f"{path} is of no known format: its name does not end in .jsonl, .ndjson or .csv, "
        "and its first line is neither a JSON object nor a line of an access log."
    )


def read_file(
    path: Path,
    options: ReadOptions = ReadOptions(),  # noqa: B008  (frozen)
    on_bad: Callable[[BadLine], None] | None = None,
) -> Iterator[Line]:
    """Read a file's records in order, in memory bounded by the longest line allowed.

    Blank lines of JSON and CSV files are passed over.

    Args:
        path: The file; a name that ends in ``.gz`` is unpacked on the way.
        options: How to read it.
        on_bad: Told of every line that gave no record; without it such a line is an error.

    Yields:
        The records.

    Raises:
        FileFormatError: The file cannot be read, or a line cannot and `on_bad` is not given.
    """
    kind = options.format or detect_format(path)

    def refuse(bad: BadLine) -> NoReturn:
        raise FileFormatError(f"{path}, line {bad.number}: {bad.reason}.")

    bad = on_bad or refuse
    read = {"jsonl": _read_jsonl, "csv": _read_csv, "access-log": _read_log}[kind]
    with _opened(path) as stream:
        _check_text(stream, path)
        yield from read(path, stream, options, bad)


def read_lines(
    path: Path, on_bad: Callable[[BadLine], None] | None = None
) -> Iterator[tuple[int, bytes]]:
    """Read a file's lines as they are, in memory bounded by the longest line allowed.

    Args:
        path: The file; a name that ends in ``.gz`` is unpacked on the way.
        on_bad: Told of every overlong line; without it such a line is an error.

    Yields:
        Where the next line starts in the (unpacked) file, and the line without its end.

    Raises:
        FileFormatError: The file cannot be read.
    """
    with _opened(path) as stream:
        _check_text(stream, path)
        for line in _lines(stream, MAX_LINE_BYTES):
            if line.data is not None:
                yield line.position, line.data
                continue
            bad = _too_long(line, MAX_LINE_BYTES)
            if on_bad is None:
                raise FileFormatError(f"{path}, line {bad.number}: {bad.reason}.")
            on_bad(bad)


# --- bytes to lines ---------------------------------------------------------------------------


@contextmanager
def _opened(path: Path) -> Generator[BinaryIO, None, None]:
    try:
        with path.open("rb") as plain:
            if path.name.endswith(".gz"):
                with gzip.GzipFile(fileobj=plain) as unpacked:
                    yield cast("BinaryIO", unpacked)
            else:
                yield plain
    except (gzip.BadGzipFile, zlib.error) as error:
        raise FileFormatError(f"{path} is not a sound gzip file: {error}.") from error
    except EOFError as error:
        raise FileFormatError(f"{path} is cut off: its gzip stream has no end.") from error
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read: {error.strerror or error}.") from error


def _check_text(stream: BinaryIO, path: Path) -> None:
    start = stream.read(2)
    if start in {b"\xff\xfe", b"\xfe\xff"} or b"\0" in start:
        raise FileFormatError(f"{path} is not UTF-8 text (UTF-16?): convert it first.")
    stream.seek(0)


def _first_line(stream: BinaryIO, path: Path) -> bytes:
    _check_text(stream, path)
    return stream.readline(_CHUNK).removeprefix(_BOM).strip()


def _lines(stream: BinaryIO, limit: int) -> Iterator[_RawLine]:
    number = position = 0
    while data := stream.readline(limit + 1):
        number += 1
        position += len(data)
        if data.endswith(b"\n"):
            yield _RawLine(number, position, data.rstrip(b"\r\n"))
            continue
        whole = len(data) <= limit  # the last line need not end
        if not whole:
            del data
            while rest := stream.readline(_CHUNK):
                position += len(rest)
                if rest.endswith(b"\n"):
                    break
            yield _RawLine(number, position, None)
            continue
        yield _RawLine(number, position, data)


def _too_long(line: _RawLine, limit: int) -> BadLine:
    return BadLine(line.number, line.position, f"longer than {limit} bytes")


# --- lines to records -------------------------------------------------------------------------


def _read_jsonl(
    _path: Path, stream: BinaryIO, options: ReadOptions, bad: Callable[[BadLine], None]
) -> Iterator[Line]:
    look_inside = options.key_field is not None or options.time_field is not None
    for line in _lines(stream, options.max_line_bytes):
        if line.data is None:
            bad(_too_long(line, options.max_line_bytes))
            continue
        data = line.data.removeprefix(_BOM) if line.number == 1 else line.data
        if not data or data.isspace():
            continue
        key = time = None
        if look_inside:
            key, time = _key_and_time(_object(data), options)
        yield Line(line.number, line.position, key, data, time)


def _read_log(
    path: Path, stream: BinaryIO, options: ReadOptions, bad: Callable[[BadLine], None]
) -> Iterator[Line]:
    fields = ["host", "user", "time", "method", "path", "protocol", "status", "bytes"]
    _check_fields(path, options, [*fields, "referer", "agent"])
    for line in _lines(stream, options.max_line_bytes):
        if line.data is None:
            bad(_too_long(line, options.max_line_bytes))
            continue
        parsed = parse_log_line(line.data)
        if parsed is None:
            bad(BadLine(line.number, line.position, "not a line of an access log"))
            continue
        fields_of = msgspec.to_builtins(parsed)
        key, time = _key_and_time(fields_of, options)
        yield Line(line.number, line.position, key, _encode(parsed), time)


class _CsvFeed:
    """Feeds the csv module text lines, and stops a quoted field that never ends.

    An exception raised in `__next__` leaves the feed usable: the csv module starts a new row
    with the line after.
    """

    def __init__(self, stream: BinaryIO, limit: int) -> None:
        self._lines = _lines(stream, limit)
        self._limit = limit
        self._row_start = 0
        self.number = 0
        self.position = 0

    def __iter__(self) -> "_CsvFeed":
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.number, self.position = line.number, line.position
        if line.data is None or line.position - self._row_start > self._limit:
            raise csv.Error(f"longer than {self._limit} bytes")
        data = line.data.removeprefix(_BOM) if line.number == 1 else line.data
        try:
            return data.decode() + "\n"
        except UnicodeDecodeError:
            raise csv.Error("not UTF-8") from None

    def row_done(self) -> None:
        self._row_start = self.position


def _csv_rows(
    feed: _CsvFeed, bad: Callable[[BadLine], None]
) -> Iterator[tuple[int, int, list[str]]]:
    reader = csv.reader(feed, strict=True)
    while True:
        start = feed.number + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            feed.row_done()
            bad(BadLine(start, feed.position, f"not a row of CSV ({error})"))
            continue
        feed.row_done()
        if row:
            yield start, feed.position, row


def _read_csv(
    path: Path, stream: BinaryIO, options: ReadOptions, bad: Callable[[BadLine], None]
) -> Iterator[Line]:
    header: list[str] = []

    def report(line: BadLine) -> None:
        if not header:
            raise FileFormatError(f"{path}, line {line.number}: {line.reason}.")
        bad(line)

    rows = _csv_rows(_CsvFeed(stream, options.max_line_bytes), report)
    header.extend(next(rows, (0, 0, []))[2])
    if not header:
        raise FileFormatError(f"{path} is empty: a CSV file starts with a row of names.")
    if len(set(header)) < len(header) or "" in header:
        raise FileFormatError(f"{path}: the first row must name every column, each name once.")
    _check_fields(path, options, header)
    for number, position, row in rows:
        if len(row) != len(header):
            bad(BadLine(number, position, f"{len(row)} fields where there are {len(header)} names"))
            continue
        record: dict[str, object] = dict(zip(header, row, strict=True))
        key, time = _key_and_time(record, options)
        if options.typed:
            record = {name: _number(text) for name, text in zip(header, row, strict=True)}
        yield Line(number, position, key, _encode(record), time)


# --- fields -----------------------------------------------------------------------------------


def _check_fields(path: Path, options: ReadOptions, names: list[str]) -> None:
    for field in (options.key_field, options.time_field):
        if field is not None and field not in names:
            raise FileFormatError(f"{path} has no field {field!r}: it has {', '.join(names)}.")


def _object(data: bytes) -> dict[str, object]:
    try:
        found = _decode(data)
    except (ValueError, RecursionError):  # ValueError: msgspec's errors and bad UTF-8 alike
        return {}
    return found if isinstance(found, dict) else {}


def _key_and_time(
    record: dict[str, object], options: ReadOptions
) -> tuple[bytes | None, int | None]:
    key: bytes | None = None
    if options.key_field is not None:
        found = record.get(options.key_field)
        if isinstance(found, str):
            key = found.encode()
        elif isinstance(found, int) and not isinstance(found, bool):
            key = b"%d" % found
    if options.time_field is None:
        return key, None
    return key, _milliseconds(record.get(options.time_field))


def _milliseconds(found: object) -> int | None:
    ms: int | None = None
    if isinstance(found, bool):
        return None
    if isinstance(found, int):
        ms = found
    elif isinstance(found, float):
        ms = int(found) if abs(found) < _INT64.stop else None
    elif isinstance(found, str):
        ms = _milliseconds_of_text(found)
    return ms if ms is not None and 0 <= ms < _INT64.stop else None


def _milliseconds_of_text(text: str) -> int | None:
    if len(text) > _LONGEST_NUMBER:
        return None
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        when = dt.datetime.fromisoformat(text)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=dt.UTC)
    since = when - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    return since // dt.timedelta(milliseconds=1)


def _number(text: str) -> object:
    """The number a CSV field reads as; the text where a number would not hold it."""
    if len(text) > _LONGEST_NUMBER or not (match := _NUMBER.fullmatch(text)):
        return text
    if match[1] or match[2]:
        number = float(text)
        return number if abs(number) != float("inf") else text
    whole = int(text)
    return whole if whole in _INT64 else text
