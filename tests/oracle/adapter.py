"""Recorded cases of Kafka Streams and Flink, run through the real engine.

``run(topology, config, input_records)`` builds a small app, pipes the input in one record at a
time and returns what came out, each row with the index of the input line that caused it. Each kind
of topology has a module beside this one, with

* ``TOPOLOGIES``, their names,
* ``OUTPUTS(topology, config)``, the outputs that are filled,
* ``app_for(topology, config, **table_options)``, the app; NotImplementedError for what cannot be,
* where an input line is not just a record, ``feed(driver, record)``,
* and, where a result is not in the peer's form, ``made(row)``.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from engine.testing import Driver

HERE = Path(__file__).parent
NOT_KINDS = {"adapter", "declared", "__init__"}


def kinds():
    """Yield the modules of the kinds of topologies."""
    for path in sorted(HERE.glob("*.py")):
        if path.stem not in NOT_KINDS and not path.stem.startswith("test_"):
            yield importlib.import_module(f"tests.oracle.{path.stem}")


KIND = {topology: kind for kind in kinds() for topology in kind.TOPOLOGIES}


def OUTPUTS(topology, config):  # noqa: N802  (the checker's name)
    """Name the outputs that are filled."""
    return KIND[topology].OUTPUTS(topology, config)


def run(topology, config, input_records, *, every=0, keep_stores=True, **table_options):
    """Return the rows that the engine emits for one case.

    Args:
        every: kill the worker after so many records, and go on with a new one; 0: never.
        keep_stores: whether it finds the stores on its disk, or has to restore them.
    """
    if topology not in KIND:
        raise NotImplementedError(topology)
    kind = KIND[topology]
    app = kind.app_for(topology, config, **table_options)
    outputs = kind.OUTPUTS(topology, config)
    feed = getattr(kind, "feed", pipe)
    rows = []
    with Driver(app, window_headers=True) as driver:
        for cause, record in enumerate(input_records):
            feed(driver, record)
            for output in outputs:
                rows += (row(cause, each) for each in driver.read(output))
            if every and cause % every == every - 1:
                driver.crash()
                if not keep_stores:
                    driver.broker.stores.clear()
                driver.restart()
        if config.get("end_flush"):
            driver.close_windows()
            for output in outputs:
                rows += (row(None, each) for each in driver.read(output))
    return list(map(getattr(kind, "made", dict), rows))


def pipe(driver, record):
    """Give one record to the app."""
    driver.pipe(record["topic"], key=record["key"], value=record["value"], timestamp=record["ts"])


def row(cause, delivered):
    """Make the checker's row of a record that came out."""
    made = {
        "cause": cause,
        "topic": delivered.topic,
        "key": delivered.key,
        "value": delivered.value,
        "ts": delivered.timestamp,
    }
    window = delivered.header("headrace.window")
    if window is not None:
        start, end = map(int, window.split(","))
        made["window"] = {"start": start, "end": end}
    return made
