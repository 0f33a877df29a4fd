"""One worker's process: the event loop, the signals, the end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING

import click
import uvloop

from engine.cli.command import Failure

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any, TypeVar

    from engine.app import App

    T = TypeVar("T")

STOP_S = 10.0
FILES_MAX = 1 << 16
"""A store takes some 12 open files, and a shell's soft limit is often 1,024: 80 tasks."""


def run_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on uvloop's event loop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def run(app: App, ready: str) -> None:
    """Run an app until a signal, with as many open files as the system allows.

    Raises:
        HeadraceError: what ended it, if not a signal.
    """
    raise_file_limit()
    run_loop(_until_signal(app, ready))


def raise_file_limit() -> None:
    """Raise the soft limit of open files to the hard one, where a system has them."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_MAX if hard == resource.RLIM_INFINITY else min(FILES_MAX, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _until_signal(app: App, ready: str) -> None:
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, asked.set)
    loop.add_signal_handler(signal.SIGINT, _interrupted, asked)
    work = loop.create_task(_run(app, ready))
    wish = loop.create_task(asked.wait())
    await asyncio.wait([work, wish], return_when=asyncio.FIRST_COMPLETED)
    wish.cancel()
    if asked.is_set():
        click.echo("stopping: what is done is committed", err=True)
    await stop(app)
    await work
    if app.crashed:  # at work, or while it stopped
        reason = app.crash_reason
        assert reason is not None
        raise reason


def _interrupted(asked: asyncio.Event) -> None:
    """Stop on the first Ctrl-C, end on the second: what is not committed comes again."""
    if asked.is_set():
        click.echo("ended at once; what was not committed is done again", err=True)
        os._exit(128 + signal.SIGINT)
    asked.set()


async def _run(app: App, ready: str) -> None:
    await app.start()
    if not app.should_stop:
        click.echo(ready, err=True)
    await app.wait_until_stopped()


async def stop(app: App) -> None:
    """Stop an app in good order, or end the process if that takes too long."""
    try:
        async with asyncio.timeout(STOP_S):
            await app.stop()
    except TimeoutError:
        error = Failure(f"the worker did not stop within {STOP_S:g} s; what was not committed is "
                        "done again")  # fmt: skip
        error.show(sys.stderr)
        os._exit(error.exit_code)
