"""What all commands have in common: late imports, ``--debug``, errors of one sentence."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Mapping

EXIT_CONFIG = 78
"""The exit status for what only a person can mend (sysexits.h): trying again is of no use."""

_DEBUG = "headrace.debug"


class Command(click.Command):
    """A command with ``--debug``."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.params.append(
            click.Option(
                ["--debug"],
                is_flag=True,
                expose_value=False,
                callback=_note_debug,
                help="Log everything, and show tracebacks.",
            )
        )

    def invoke(self, ctx: click.Context) -> Any:
        """Run it."""
        from engine.cli.console import log_to_stderr

        log_to_stderr("warning")
        return super().invoke(ctx)


def _note_debug(context: click.Context, _: click.Parameter, value: bool) -> None:  # noqa: FBT001
    context.meta[_DEBUG] = context.meta.get(_DEBUG, False) or value


def debugging() -> bool:
    """Say whether the running command was given ``--debug``."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(_DEBUG))


class Failure(click.ClickException):
    """An error as the user sees it: one sentence on stderr, and an exit status."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Group(click.Group):
    """Commands whose errors are told in a sentence."""

    command_class = Command  # type: ignore[mutable-override]

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except Exception as error:
            if ctx.meta.get(_DEBUG):
                raise
            raise _told(error) from error


def _told(error: Exception) -> Failure:
    """Return an error as a sentence; one that nobody foresaw says how to learn more."""
    from engine.connect.files import FileFormatError
    from engine.devbroker import BrokerFailed, BrokerUnavailable
    from engine.errors import AgentFailed, ConfigError, HeadraceError
    from tables.errors import StateError

    match error:
        case ConfigError() | BrokerUnavailable():
            return Failure(str(error), EXIT_CONFIG)
        case AgentFailed():
            return Failure(f"{error} (--debug shows where and why)")
        case HeadraceError() | StateError() | BrokerFailed() | FileFormatError():
            return Failure(str(error))
        case OSError():
            what = f"{error.filename}: " if error.filename else ""
            return Failure(f"{what}{error.strerror or error}")
        case _:
            return Failure(f"unforeseen {type(error).__name__} (--debug shows where and why)")


class Commands(Group):
    """The top: commands that are imported when they are run.

    Args:
        commands_of: the summary of each command, by its name, which is its module's too.
    """

    def __init__(self, *args: Any, commands_of: Mapping[str, str], **options: Any) -> None:
        super().__init__(*args, **options)
        self._summaries = commands_of

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names."""
        return list(self._summaries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in self._summaries:
            return None
        command: click.Command = getattr(import_module(f"engine.cli.{cmd_name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self._summaries.items()))
