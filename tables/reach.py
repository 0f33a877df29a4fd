"""Which records of two streams meet, and where a store keeps them: under side, key, time, arrival.

Two kinds of timers go with them: one a lonely record, for when it comes out, and one a side, key
and stretch of time, for when nobody can meet what lies there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from tables.codec import TIME_BYTES, decode_time, encode_time
from tables.store import TIMERS
from tables.timers import timer_rows

if TYPE_CHECKING:
    from tables.store import Change

LEFT, RIGHT = 0, 1
SIDES = (LEFT, RIGHT)

MET, ALONE = b"\0", b"\1"
"""What an entry begins with; ALONE: the record had met nobody when it was written."""

CLOCK = b"\xff"
"""The key of the entry that says how far time is; those of records begin with their side."""

_LENGTH_BYTES = 4
_KEY_AT = 1 + _LENGTH_BYTES
_TAIL = 2 * TIME_BYTES
_STRETCHES = 8
"""What is out of reach is looked for so often in the time that a record is kept."""


class Reach(msgspec.Struct, frozen=True):
    """Which right records a left one meets: from ``before_ms`` before it to ``after_ms`` after.

    Attributes:
        grace_ms: how long a lonely record waits beyond that for one that is late.
    """

    before_ms: int
    after_ms: int
    grace_ms: int = 0

    @property
    def kept_ms(self) -> int:
        """How much newer the newest record of a side may be, for one to be met still."""
        return max(1, self.before_ms + self.after_ms + self.grace_ms)

    @property
    def stretch_ms(self) -> int:
        """In which steps of time to look for what is out of reach."""
        return max(1, self.kept_ms // _STRETCHES)

    def forward(self, side: int) -> int:
        """Return how far after its own time a record of a side meets others, in ms."""
        return self.after_ms if side == LEFT else self.before_ms

    def out_of_reach(self, ts: int) -> int:
        """Return when to look for records of ``ts`` that nobody can meet, by their side's time."""
        stretch = self.stretch_ms
        return -(-(ts + self.kept_ms) // stretch) * stretch

    def closes(self, side: int, ts: int) -> int:
        """Return the stream time at which a lonely record comes out."""
        return ts + self.forward(side) + self.grace_ms + 1


def prefix_of(side: int, key: bytes) -> bytes:
    """Return what the addresses of a side's records with this key begin with, and no others."""
    return b"%c%b%b" % (side, len(key).to_bytes(_LENGTH_BYTES, "big"), key)


def address_of(side: int, key: bytes, ts: int, number: int) -> bytes:
    """Return the key of a record's entry; its first byte is the side."""
    return prefix_of(side, key) + encode_time(ts) + encode_time(number)


def beyond(side: int, key: bytes, ts: int) -> bytes:
    """Return an address above a side's records with this key up to ``ts``, below later ones."""
    return prefix_of(side, key) + encode_time(ts + 1)


def key_in(address: bytes) -> bytes:
    """Return the key in an address."""
    return address[_KEY_AT:-_TAIL]


def time_in(address: bytes) -> int:
    """Return the time (ms) in an address."""
    return decode_time(address[-_TAIL:])


def place_in(address: bytes) -> tuple[int, int]:
    """Return the time (ms) and the number of arrival in an address."""
    return decode_time(address[-_TAIL:]), decode_time(address[-TIME_BYTES:])


def closing(family: str) -> str:
    """Name the owner of the timers of lonely records."""
    return f"{family}/closing"


def expiry(family: str, side: int) -> str:
    """Name the owner of the timers of what is out of reach on a side."""
    return f"{family}/expiry{side}"


def restored(family: str, changes: list[Change], reach: Reach) -> dict[str, list[Change]]:
    """Return what a store must hold for these changelog records: them, and their timers."""
    lonely: list[tuple[int, bytes]] = []
    over: tuple[set[tuple[int, bytes]], ...] = (set(), set())
    for address, raw in changes:
        if raw is not None and address != CLOCK:
            side, ts = address[0], time_in(address)
            over[side].add((reach.out_of_reach(ts), key_in(address)))
            if raw[:1] == ALONE:
                lonely.append((reach.closes(side, ts), address))
    timers = timer_rows(closing(family), lonely)
    for side in SIDES:
        timers += timer_rows(expiry(family, side), over[side])
    return {family: changes, TIMERS: timers}
