"""What of an agent's exception goes to the log."""

from __future__ import annotations

from engine.config import logs_values


def withheld(error: BaseException | None) -> BaseException | None:
    """Return an exception as the log may show it: its type and where it was raised, not its text.

    The text of an agent's exception may quote the event that it was raised on.
    """
    if error is None or logs_values():
        return error
    shown = type(type(error).__name__, (Exception,), {"__module__": "builtins"})
    text = "(its text may quote the event; HEADRACE_LOG_VALUES=true logs it)"
    made: BaseException = shown(text)
    return made.with_traceback(error.__traceback__)
