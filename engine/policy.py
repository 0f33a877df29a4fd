"""What becomes of an event on which an agent raises: its tries, then its end.

>>> @app.agent(ORDERS, on_error=retry(3, backoff=0.2).then("dead_letter"))

A try undoes everything that the failed one did. Between two tries the event's task stands still;
the other tasks go on.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from engine.errors import ConfigError

Outcome = Literal["dead_letter", "stop", "skip"]

MOST_S = 60.0
"""Between two tries at most: retrying is for what passes soon."""


class Policy(msgspec.Struct, frozen=True):
    """An agent's answer to its own exceptions. Made by :func:`retry`.

    Attributes:
        retries: so many more tries after the first.
        backoff_s: the pause before the second try; it doubles from try to try, up to ``most_s``.
        outcome: what comes after the last: ``dead_letter`` (the event goes to the dead letters of
            its topic), ``skip`` (it is passed over) or ``stop`` (its task stands still until a
            person acts).
    """

    retries: int = 0
    backoff_s: float = 0.0
    most_s: float = MOST_S
    outcome: Outcome = "dead_letter"

    def then(self, outcome: Outcome) -> Policy:
        """Return the policy with another end."""
        return checked(msgspec.structs.replace(self, outcome=outcome))

    def pause_ms(self, tries: int) -> float:
        """Return how long (ms) to wait after ``tries`` tries that failed."""
        return 1000 * min(self.most_s, self.backoff_s * 2.0 ** min(tries - 1, 32))


OnError = Outcome | Policy


def retry(times: int, *, backoff: float = 0.0, most: float = MOST_S) -> Policy:
    """Return a policy of ``times`` more tries, then the dead letters (see :meth:`Policy.then`).

    Args:
        backoff: seconds before the second try; doubled from try to try.
        most: the longest pause (s).
    """
    return checked(Policy(times, backoff, most))


def policy_of(on_error: OnError, retries: int = 0) -> Policy:
    """Return the policy for an agent's ``on_error=`` and ``retries=``.

    Raises:
        ConfigError: there is no such policy.
    """
    if isinstance(on_error, Policy):
        if retries:
            raise ConfigError("give the retries in on_error=retry(...) or in retries=, not in both")
        return on_error
    return checked(Policy(retries, outcome=on_error))


def checked(policy: Policy) -> Policy:
    """Return a policy, or say what is wrong with it."""
    if policy.outcome not in {"dead_letter", "stop", "skip"}:
        raise ConfigError(f"on_error={policy.outcome!r}: it is 'dead_letter', 'stop' or 'skip'")
    if policy.retries < 0 or policy.backoff_s < 0 or policy.most_s < 0:
        raise ConfigError(
            f"retry({policy.retries}, backoff={policy.backoff_s}, most={policy.most_s}): "
            "none of them may be negative"
        )
    return policy
