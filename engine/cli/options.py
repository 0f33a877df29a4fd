"""Options that several commands take, and how their values are read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.config import Config

_UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


class Duration(click.ParamType):
    """A time such as ``7d``, ``12h``, ``30m``, ``10s`` or ``500ms``, in ms; ``forever`` is -1."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return ms."""
        if isinstance(value, int):
            return value
        if value == "forever":
            return -1
        match = re.fullmatch(r"(\d+)(ms|s|m|h|d)", value)
        if match is None:
            self.fail(
                f"{value!r} is no time: write 7d, 12h, 30m, 10s, 500ms or forever", param, ctx
            )
        return int(match[1]) * _UNITS_MS[match[2]]


broker = click.option(
    "--broker",
    metavar="HOST:PORT",
    help="The Kafka cluster. Default: HEADRACE_BROKER, else 127.0.0.1:9092.",
)
guarantee = click.option(
    "--guarantee",
    type=click.Choice(["exactly_once", "at_least_once"]),
    help="at_least_once is for brokers without transactions.",
)
state_dir = click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the tables are kept; workers on one machine share it.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


def log_level(default: str) -> Callable[[Any], Any]:
    """Return the option ``--log-level``."""
    return click.option(
        "--log-level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        default=default,
        show_default=True,
        help="What of the log goes to stderr.",
    )


def admin_config(broker: str | None, **settings: Any) -> Config:
    """Return settings for looking at a cluster from outside of any app."""
    from engine import config

    given = {name: value for name, value in settings.items() if value is not None}
    if broker is not None:
        given["broker"] = broker
    return config.make({"id": "headrace-cli", **given})
