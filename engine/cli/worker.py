"""``headrace worker``: run an app, alone or in several processes."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine.cli import options
from engine.cli.command import Command, debugging

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.app import App

TEND_S = 0.2


@click.command(cls=Command)
@click.argument("module", default="agents")
@options.broker
@options.guarantee
@options.state_dir
@click.option("--replicas", type=click.IntRange(min=1), default=1, show_default=True,
              help="So many processes; one that crashes is started again.")  # fmt: skip
@click.option("--commit-interval", type=options.Duration(),
              help="Time between commits, about the latency. Default: 100ms.")  # fmt: skip
@click.option("--memory-limit", metavar="SIZE",
              help="Of one process: 512MiB, 2GiB. Default: a small control group's.")  # fmt: skip
@click.option("--fixed", is_flag=True,
              help="Adapt nothing to the load: the settings as they are.")  # fmt: skip
@click.option("--partitions", type=click.IntRange(min=1),
              help="Of topics that this worker creates. Default: 12.")  # fmt: skip
@click.option("--standby-replicas", type=click.IntRange(min=0),
              help="So many other workers keep a copy of each task's tables warm.")  # fmt: skip
@click.option("--end-marks", is_flag=True, hidden=True, help="Heed end-of-input marks.")
@click.option("--replica", is_flag=True, hidden=True, help="One of several: all is announced.")
@options.log_level("info")
def worker(module: str, replicas: int, log_level: str, *, replica: bool, **given: Any) -> None:
    """Run an app's agents until SIGTERM or Ctrl-C; a second Ctrl-C ends it at once.

    MODULE is a Python module with an app in `app`, or MODULE:NAME. The current directory is on the
    import path. Topics that are missing are created. More workers, on this machine or on others,
    share the work: start the same command again. What an option leaves unsaid the app's code says,
    then HEADRACE_<NAME>, then the default.

    \b
    Examples:
      headrace worker
      headrace worker shop.orders:app --broker kafka1:9092 --replicas 4
      headrace worker --replicas 3 --standby-replicas 1
      headrace worker --memory-limit 512MiB
    """
    from engine import config, crashpoint
    from engine.cli.console import log_to_stderr
    from engine.cli.loading import load_app
    from engine.cli.running import run
    from engine.memory import group_limit

    crashpoint.arm(config.crash_at())
    log_to_stderr(log_level, aiokafka=True)
    app = load_app(module)
    app.configure(**settings_of(given))
    if not replica:
        announce(app, module, replicas)
    if replicas > 1 and given["memory_limit"] is None:
        given["memory_limit"] = group_limit(replicas) or None  # it is for all of them together
    if replicas > 1:  # of an app that is known to be there, with settings that fit
        supervise(worker_argv(module, {**given, "log_level": log_level, "replica": True}), replicas)
    else:
        run(app, f"worker of {app.settings().id} is at work; Ctrl-C stops it")


def settings_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options as the engine's settings."""
    settings = dict(given)
    settings["commit_interval_ms"] = settings.pop("commit_interval", None)
    settings["adaptive"] = False if settings.pop("fixed", False) else None
    settings["end_marks"] = settings.pop("end_marks", False) or None
    return settings


def worker_argv(module: str, given: Mapping[str, Any]) -> list[str]:
    """Return the command line of one worker with these options."""
    argv = [sys.executable, "-m", "engine.cli", "worker", module]
    for name, value in given.items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            argv.append(option)
        elif value is not None and value is not False:
            argv += [option, f"{value}ms" if name == "commit_interval" else str(value)]
    if debugging():
        argv.append("--debug")
    return argv


def announce(app: App, module: str, replicas: int) -> None:
    """Say what is about to run."""
    from engine import __version__
    from engine.cli.console import promised

    config, topology = app.settings(), app.topology()
    agents = dict.fromkeys(node.agent.name for part in topology.parts for node in part.nodes)
    outputs = {t.name for part in topology.parts for t in part.outputs if not t.internal}
    rows = {
        "app": f"{config.id} (module {module}), headrace {__version__}",
        "agents": ", ".join(agents),
        "reads": ", ".join(t.name for t in topology.inputs.values() if not t.internal),
        "writes": ", ".join(sorted(outputs)) or "-",
        "broker": config.broker,
        "security": config.security.summary(),
        "state": str(config.state_dir / config.id),
        "guarantee": promised(config.guarantee),
    }
    if replicas > 1:
        rows["replicas"] = f"{replicas} processes"
    for name, text in rows.items():
        click.echo(f"{name:<10} {text}", err=True)


def supervise(argv: list[str], count: int) -> None:
    """Keep workers running until SIGTERM or Ctrl-C."""
    from engine.cli.supervisor import Supervisor
    from engine.clock import SystemClock

    stopping = threading.Event()
    pressed = 0

    def heed(signum: int, _: object) -> None:
        nonlocal pressed
        pressed += signum == signal.SIGINT
        stopping.set()
        if pressed > 1:
            supervisor.kill()
            os._exit(128 + signum)

    signal.signal(signal.SIGINT, heed)
    signal.signal(signal.SIGTERM, heed)
    supervisor = Supervisor(
        argv,
        count,
        clock=SystemClock(),
        directory=Path.cwd(),
        say=lambda text: click.echo(text, err=True),
    )
    with contextlib.closing(_Stopped(supervisor)):
        while not stopping.wait(TEND_S):
            supervisor.tend()


class _Stopped:
    """Stops a supervisor's workers when it is closed."""

    def __init__(self, supervisor: Any) -> None:
        self._supervisor = supervisor

    def close(self) -> None:
        """Stop the workers."""
        self._supervisor.stop()
