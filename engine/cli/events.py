"""What the demo works on: generated events, or a file's."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from agents.access_log import access_log_events
from agents.workload import Workload
from engine.connect.files import (
    BadLine,
    FileFormatError,
    ReadOptions,
    detect_format,
    read_file,
    read_lines,
)

if TYPE_CHECKING:
    from engine.connect.loader import Keyed

_DAY_MS = 86_400_000
_USER = re.compile(rb"user_\d+")
_encode = msgspec.json.Encoder().encode


class Input(NamedTuple):
    """Profiles, and the events that are joined to them.

    Attributes:
        total: how many events there are.
    """

    total: int
    profiles: Callable[[], Iterator[Keyed]]
    events: Callable[[], Iterator[Keyed]]


def generated(events: int, users: int, seed: int) -> Input:
    """Return events of the workload generator, of which 1 % break the contract."""
    workload = Workload(events=events, users=users, seed=seed)
    return Input(events, workload.profiles, workload.raw_events)


def from_file(path: Path, now_ms: int) -> Input:
    """Return a file's events, with a made-up profile for each visitor in it.

    The file is read twice: profiles come before the first event, so who there is must be known.
    Event times that the broker would refuse (before 1970, or to come) are replaced in the record,
    not in the event.

    Raises:
        FileFormatError: it is neither an access log nor raw events as JSON lines.
    """
    kind = detect_format(path)
    if kind == "csv":
        raise FileFormatError(
            f"{path} is CSV: the demo takes an access log, or raw events as JSON lines."
        )
    read = _requests if kind == "access-log" else _json_lines

    def events() -> Iterator[Keyed]:
        newest = 0
        for key, value, time in read(path):
            newest = max(newest, time) if 0 <= time <= now_ms else newest
            yield key, value, time if 0 <= time <= now_ms else newest

    users: dict[bytes, None] = {}
    count, first = 0, now_ms
    for key, _, time in events():
        count += 1
        first = min(first, time)
        if key is not None and _USER.fullmatch(key):
            users[key] = None
    if not count:
        raise FileFormatError(f"{path} holds no events.")
    before = max(0, first - _DAY_MS)
    return Input(count, lambda: (_profile(user, before) for user in users), events)


def _requests(path: Path) -> Iterator[Keyed]:
    return access_log_events(line for _, line in read_lines(path))


def _json_lines(path: Path) -> Iterator[Keyed]:
    """Read raw events; a line without a time gets the one before it, for the contract to refuse."""
    options = ReadOptions(format="jsonl", key_field="user_id", time_field="timestamp")
    time = 0
    for line in read_file(path, options, _refuse):
        time = time if line.timestamp_ms is None else line.timestamp_ms
        yield line.key, line.value, time


def _refuse(bad: BadLine) -> None:
    raise FileFormatError(f"line {bad.number} cannot be sent: {bad.reason}.")


def _profile(user: bytes, written: int) -> Keyed:
    """Make up a profile: the same in every run."""
    rng = random.Random(user)  # noqa: S311  (meant to be predictable)
    profile = {
        "user_id": user.decode(),
        "country": rng.choice(("AT", "BR", "CH", "DE", "FR", "IN", "JP", "PL", "US")),
        "tier": rng.choice(("free", "free", "free", "silver", "gold")),
        "signup_ts": max(0, written - rng.randrange(1000) * _DAY_MS),
    }
    return user, _encode(profile), written
