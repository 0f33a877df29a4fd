"""Nothing in a record runs code, writes elsewhere, or reaches the log."""

import ast
import logging
import pickle
import subprocess
import sys
from typing import Annotated

import faust
import pytest
from msgspec import Meta, Struct

from engine import App, Contract
from engine.errors import ConfigError
from engine.task import END_MARK
from engine.testing import Driver
from engine.topic import Topic
from tests.shell import ROOT, environ

CANARY = "canary-4111111111111111"


class Order(Struct):
    id: int
    name: Annotated[str, Meta(pattern="^[a-z]+$", max_length=30)]
    tags: dict[str, int] = {}


def counting() -> App:
    app = App("records")
    orders = app.topic("orders", value_type=Order, key_type=str)
    out = app.topic("out", value_type=Order, key_type=str)
    counts = app.Table("counts", default=int, key_type=str, value_type=int).tumbling(60)

    @app.agent(orders, sink=[out])
    async def work(orders):
        async for order in orders:
            counts[order.name] += 1
            if order.name == "poison":
                raise KeyError(CANARY, order)
            yield order

    return app


@pytest.mark.parametrize("codec", ["pickle", "json|pickle", "binary", "raw|pickle"])
def test_a_topic_cannot_be_declared_with_another_codec(codec: str) -> None:
    """Faust's pickle codec runs what is in the record."""
    app = App("codecs")
    for option in ("value_serializer", "key_serializer"):
        with pytest.raises(ConfigError, match="there is no serializer"):
            app.topic("orders", **{option: codec})
        with pytest.raises(ConfigError, match="has no effect here"):
            App("codecs", **{option: codec})
    app.topic("orders", value_serializer="json", key_serializer="raw")


def test_a_faust_record_cannot_bring_another_codec() -> None:
    """The model says how it is serialized."""

    class Bad(faust.Record, serializer="pickle"):
        id: int

    class Good(faust.Record, serializer="json"):
        id: int

    app = App("models")
    app.topic("good", value_type=Good)
    with pytest.raises(ConfigError, match="no serializer 'pickle'"):
        app.topic("bad", value_type=Bad)


AUDIT = """
import sys
seen, watching = set(), False
sys.addaudithook(lambda event, _: seen.add(event) if watching else None)
import os, pickle
from msgspec import Struct
from engine import App
from engine.testing import Driver

class Order(Struct):
    id: int

class Evil:
    def __reduce__(self):
        return os.system, ("true",)

app = App("audit")
inputs = [
    app.topic("orders", value_type=Order),
    app.topic("any"),
    app.topic("raw", value_type=bytes),
    app.topic("text", value_type=str),
]
out = app.topic("out")
last = app.Table("last")

@app.agent(inputs, sink=[out])
async def work(events):
    async for event in events:
        last["x"] = str(event)
        yield {"event": str(event)}

bad = pickle.dumps(Evil())
values = (bad, b"__import__('os').system('true')", b"!!python/object/apply:os.system [true]")
headers = [("Faust-Ag-ReplyTo", b"x"), ("c", bad)]
with Driver(app) as driver:
    for watch in (False, True, True):  # at first all that is imported late is imported
        watching = watch
        for topic in inputs:
            for value in values:
                driver.pipe(topic, key=bad, value=value, headers=headers)
        driver.pipe("orders", key=b"k", value=b'{"id": 2}')
        watching = False  # settings are read again now: msgspec evaluates our own annotations
        driver.crash()
        driver.restart()
    assert len(driver.read("out")) >= 2
runs = {"pickle", "marshal", "exec", "compile", "subprocess", "ctypes", "socket", "import"}
print(sorted(event for event in seen if event.split(".")[0] in runs or event == "os.system"))
"""


def test_nothing_on_the_path_of_a_record_runs_code() -> None:
    """By Python's own audit events, while records full of pickles go through."""
    done = subprocess.run(
        [sys.executable, "-c", AUDIT], cwd=ROOT, env=environ(), capture_output=True, text=True,
        check=False, timeout=50,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_a_record_cannot_say_where_its_results_go() -> None:
    """Faust would send them to the topic that its header names."""
    app = counting()
    headers = [("Faust-Ag-ReplyTo", b"counts"), ("Faust-Ag-CorrelationId", b"1")]
    with Driver(app) as driver:
        driver.pipe("orders", key="k", value={"id": 1, "name": "ann"})
        before = written(driver)
        driver.pipe("orders", key="k", value={"id": 2, "name": "ann"}, headers=headers)
        after = written(driver)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"orders", "out", "records-counts-changelog"}


def written(driver: Driver) -> dict[str, int]:
    """Return how many records each topic has."""
    counts: dict[str, int] = {}
    for tp, log in driver.broker.logs.items():
        counts[tp.topic] = counts.get(tp.topic, 0) + sum(row is not None for row in log)
    return counts


def test_a_foreign_end_mark_closes_nothing() -> None:
    """Any producer could send one: they are heeded where the worker is told to."""
    app = counting()
    with Driver(app, end_marks=False) as driver:
        driver.pipe("orders", key="k", value={"id": 1, "name": "ann"}, timestamp=1_000)
        driver.pipe("orders", key="k", value=None, headers=[(END_MARK, b"")], timestamp=1_001)
        [letter] = driver.dead_letters("orders")
        assert dict(letter.headers)["__contract.rule"] == b"value.required"


def test_a_forged_reason_is_not_believed() -> None:
    """What the engine says of a dead letter comes after what a producer said of it."""
    with Driver(counting()) as driver:
        driver.pipe("orders", key="k", value=b"{", headers=[("__contract.rule", b"none")])
        [letter] = driver.dead_letters("orders")
        assert dict(letter.headers)["__contract.rule"] == b"json"


BROKEN = [
    CANARY.encode(),
    b'{"id": "%s"}' % CANARY.encode(),
    b'{"id": 1, "name": "%s"}' % CANARY.encode(),
    b'{"id": 1, "name": "%s"}' % (9 * CANARY).encode(),
    b'{"id": 1, "name": "ann", "tags": {"%s": "x"}}' % CANARY.encode(),
    b'{"id": 1, "name": "poison", "tags": {"%s": 1}}' % CANARY.encode(),
    b'{"id": 4111111111111111e400, "name": "ann"}',
    pickle.dumps(CANARY),
]


def test_no_value_is_in_the_log_or_in_what_is_said_of_a_dead_letter(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """At the lowest level, from contracts and from an agent whose exception quotes the event."""
    with caplog.at_level(logging.DEBUG), Driver(counting()) as driver:
        for value in BROKEN:
            driver.pipe("orders", key=CANARY, value=value, headers=[("h", CANARY.encode())])
        letters = driver.dead_letters("orders")
    assert len(letters) == len(BROKEN)
    for letter in letters:
        said = [(name, value) for name, value in letter.headers if name != "h"]
        assert CANARY not in repr(said)
        assert "4111111111111111" not in repr(said)
    shown = "\n".join(logging.Formatter("%(message)s").format(r) for r in caplog.records)
    assert "agent work raised KeyError" in shown or "KeyError" in shown
    assert "Traceback" in shown
    assert "HEADRACE_LOG_VALUES=true logs it" in shown
    assert "4111111111111111" not in shown


@pytest.mark.parametrize("name", ["", "a b", "a/b", "../up", "..", ".", "a\nb", "x" * 250, "ä"])
def test_a_topics_name_is_checked(name: str) -> None:
    """It is in paths, in requests and in messages."""
    with pytest.raises(ConfigError, match="use 1 to 249 of letters"):
        Topic(name, Contract.of("c"))


RUNS_BYTES = {
    "pickle",
    "cPickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "marshal",
    "shelve",
    "jsonpickle",
}
CALLS = {"eval", "exec", "__import__", "yaml.load", "yaml.unsafe_load", "yaml.full_load"}


def test_the_sources_have_nothing_that_runs_what_it_reads() -> None:
    """No import of it, no call."""
    for folder in ("engine", "agents", "tables"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    assert not {name.name.partition(".")[0] for name in node.names} & RUNS_BYTES
                elif isinstance(node, ast.ImportFrom):
                    assert (node.module or "").partition(".")[0] not in RUNS_BYTES, path
                elif isinstance(node, ast.Call):
                    assert ast.unparse(node.func) not in CALLS, path
