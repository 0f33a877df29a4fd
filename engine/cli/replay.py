"""``headrace replay``: run an app over recorded records, in memory, and record what comes out."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from engine.cli.command import Command, Failure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.record import TP, Headers, Output
    from engine.testing import Driver


@click.command(cls=Command)
@click.argument("module")
@click.option("--input", "source", required=True, metavar="IN.jsonl",
              type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="The records, in the order in which they are to be worked on.")  # fmt: skip
@click.option("--output", "target", required=True, metavar="OUT.jsonl",
              type=click.Path(dir_okay=False, path_type=Path),
              help="Where the results go, dead letters too.")  # fmt: skip
@click.option("--keep-open", is_flag=True, help="Leave open what the records leave open.")
def replay(module: str, source: Path, target: Path, *, keep_open: bool) -> None:
    """Run an app over recorded records, without a broker, and record its results.

    The records are worked on one after the other, each with all that follows from it; at the end
    every window is closed. The same records give the same results.

    \b
    One JSON object a line: topic, key, value, timestamp (ms), and headers if there are any. A value
    that is a string goes in as its bytes, so that what is no JSON can be recorded too. Results of
    windows also have window: {start, end}; bytes that are no text are {"base64": ...}.

    \b
    Examples:
      headrace replay agents --input in.jsonl --output out.jsonl
      headrace replay shop.orders:app --input in.jsonl --output out.jsonl --keep-open
    """
    from engine.cli.loading import load_app
    from engine.testing import Driver

    app = load_app(module)
    stderr = click.get_text_stream("stderr")
    with (
        source.open("rb") as lines,
        target.open("wb") as results,
        Driver(app, window_headers=True) as driver,
        click.progressbar(lines, length=_count(source), label="replaying", file=stderr) as bar,
    ):
        recorder = Recorder(driver, results)
        for number, line in enumerate(bar, 1):
            if line.strip():
                recorder.put(_record(line, source, number))
        if not keep_open:
            driver.close_windows()
            recorder.write_new()
    click.echo(
        f"{recorder.taken:,} records in, {recorder.written:,} out, of which "
        f"{recorder.dead_letters:,} dead letters: {target}",
        err=True,
    )


def _count(path: Path) -> int:
    with path.open("rb") as lines:
        return sum(1 for _ in lines)


def _record(line: bytes, path: Path, number: int) -> dict[str, Any]:
    """Read one line.

    Raises:
        Failure: it is not a record; the message says where and what is wrong.
    """
    import msgspec

    try:
        record = msgspec.json.decode(line, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise Failure(f"{path}, line {number}: not a JSON object ({error})") from error
    for name, kind in (("topic", str), ("timestamp", int)):
        if not isinstance(record.get(name), kind):
            raise Failure(f"{path}, line {number}: {name!r} must be there, and be {kind.__name__}")
    return record


class Recorder:
    """Puts records into a driver and writes down what becomes visible."""

    def __init__(self, driver: Driver, results: BinaryIO) -> None:
        self.taken = self.written = self.dead_letters = 0
        self._driver = driver
        self._results = results
        self._seen = len(driver.broker.order)
        self._inputs: set[str] = set()

    def put(self, record: dict[str, Any]) -> None:
        """Let the app work on one record, and write what follows from it."""
        topic = self._driver.topic(record["topic"])
        self._inputs.add(topic.name)
        headers = record.get("headers") or {}
        pairs = headers.items() if isinstance(headers, dict) else headers
        self._driver.pipe(
            topic,
            key=_bytes(record.get("key")),
            value=_bytes(record.get("value")),
            timestamp=record["timestamp"],
            headers=tuple((name, value.encode()) for name, value in pairs),
        )
        self.taken += 1
        self.write_new()

    def write_new(self) -> None:
        """Write every record that has become visible since the last time, inputs aside."""
        import msgspec

        encode = msgspec.json.Encoder().encode
        for tp, output in self._new():
            self._results.write(encode(self._row(tp, output)) + b"\n")
            self.written += 1

    def _new(self) -> Iterator[tuple[TP, Output]]:
        from engine.task import END_MARK

        broker = self._driver.broker
        start, self._seen = self._seen, len(broker.order)
        for tp, offset in broker.order[start:]:
            output = broker.logs[tp][offset]
            hidden = tp.topic in self._inputs or self._driver.app.topic_named(tp.topic).internal
            if output is None or any(name == END_MARK for name, _ in output[3]):
                continue
            if not hidden or tp.topic.endswith("-dlq"):
                yield tp, output

    def _row(self, tp: TP, output: Output) -> dict[str, Any]:
        from engine.results import WINDOW_HEADER

        key, value, timestamp, headers = output
        topic = self._driver.app.topic_named(tp.topic)
        row: dict[str, Any] = {"topic": tp.topic, "timestamp": timestamp}
        if tp.topic.endswith("-dlq"):  # as it came: whatever it is
            self.dead_letters += 1
            row |= {"key": _text(key), "value": _text(value)}
        else:
            row["key"] = None if key is None else _plain(topic.key.decode(key))
            row["value"] = None if value is None else topic.contract.decode(value)
        if kept := _headers(headers, without=WINDOW_HEADER):
            row["headers"] = kept
        for name, bounds in headers:
            if name == WINDOW_HEADER:
                start, end = map(int, bounds.split(b","))
                row["window"] = {"start": start, "end": end}
        return row


def _bytes(value: Any) -> bytes | None:
    """Return a recorded key or value as bytes: text as it is, everything else as JSON."""
    import msgspec

    match value:
        case None:
            return None
        case str():
            return value.encode()
        case {"base64": str(encoded)} if len(value) == 1:
            return base64.b64decode(encoded)
        case _:
            return msgspec.json.encode(value)


def _text(value: bytes | None) -> Any:
    """Return bytes as text, where they are text."""
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}


def _plain(key: Any) -> Any:
    return _text(key) if isinstance(key, bytes) else key


def _headers(headers: Headers, *, without: str) -> dict[str, Any]:
    return {name: _text(value) for name, value in headers if name != without}
