"""Whatever bytes a record has, its check says what is wrong with it, and raises nothing.

A worker that a record could end would end again at the same record after each restart.
"""

import random
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

import pytest
from msgspec import Meta, Struct

from engine import Contract, Rule

Text = Annotated[str, Meta(pattern="^[a-z]+$")]


class Whole(Struct):
    t: int
    name: Text = "a"
    more: Any = None


class Maybe(Struct):
    t: int | None = None
    name: Text = "a"


class Fraction(Struct):
    t: float


class Exact(Struct):
    t: Decimal


class Dated(Struct):
    t: datetime | None


class Nested(Struct, forbid_unknown_fields=True):
    t: int
    more: list["Nested"] = []


class Row(Struct, array_like=True):
    t: int
    more: Any = None


class One(Struct, tag=True):
    t: int


class Other(Struct, tag=True):
    t: float


class Key(Struct, frozen=True, array_like=True):
    what: Any


STRUCTS = [Whole, Maybe, Fraction, Exact, Dated, Nested, Row, One | Other, dict, None]
OTHERS = [str, bytes, list[int], dict[str, Whole], int]
KEY_TYPES = [None, str, int, bytes, tuple[str, int], Key, Any]

NUMBERS = [
    *b"0 1 -1 -0 1.5 1E5 01 1e400 -1e400 1e308 9223372036854775807 9223372036854775808".split(),
    *b"1e18 253402300799999 253402300800000 1736121600000 null true NaN Infinity [] {}".split(),
    *b'"NaN" "-Infinity" "sNaN" "1e999999" "x" "" "\\ud800" "\\u0000" "1736121600000"'.split(),
    *b'"2020-01-01T00:00:00" "0001-01-01T00:00:00+14:00" "9999-12-31T23:59:59-14:00"'.split(),
    b"9" * 30, b"9" * 5_000, b"-" + b"9" * 400, b'"\xed\xa0\x80"',
]  # fmt: skip
KEYS = [*[None, b"a", b"1"] * 4, b"", b"\xff\xfe", b"9" * 5_000, b"\x92\xa1a\x01",
        *(b"\x91" * deep + b"\x01" for deep in (1, 101, 900, 100_000))]  # fmt: skip
HEADERS = [(), (), (), [("a", b"b")], [("a", None)], [("x" * 70_000, b"")], [("a", b"")] * 200]


def value(dice: random.Random) -> bytes | None:
    number, other = dice.choice(NUMBERS), dice.choice(NUMBERS)
    deep = dice.choice([1, 50, 700, 5_000])
    raw = dice.choice([
        b'{"t":%b,"name":%b,"type":"%b"}' % (number, other, dice.choice([b"One", b"Other", b"No"])),
        b'{"t":%b,"name":"%b"}' % (number, b"a" * dice.choice([1, 5_000, 200_000])),
        b'{"t":%b,"more":%b}' % (number, b"[" * deep + b"]" * deep),
        b'{"t":%b,"more":%b}' % (number, b'[{"t":1,"more":' * deep),
        b'{"t":%b,"t":%b}' % (number, other),
        b"[%b,%b]" % (number, other),
        number,
    ])  # fmt: skip
    if dice.random() < 0.1:
        raw = raw[: dice.randrange(len(raw) + 1)]
    if dice.random() < 0.1:
        place = dice.randrange(len(raw) + 1)
        raw = raw[:place] + bytes([dice.randrange(256)]) + raw[place:]
    return dice.choice([*[raw] * 12, None, b""])


def contracts(dice: random.Random) -> list[Contract]:
    def of(kind: Any, **options: Any) -> Contract:
        nulls, needed = dice.random() < 0.5, dice.random() < 0.5
        return Contract.of(
            "c", kind, key_type=dice.choice(KEY_TYPES), null_values=nulls, key_required=needed,
            rules=[Rule("t.odd", check=lambda events: [i for i, e in enumerate(events) if e.t % 2])]
            if dice.random() < 0.3 else (),
            **options,
        )  # fmt: skip

    units = ("s", "ms", "us", "ns")
    timed = [of(kind, event_time="t", time_unit=unit) for kind in STRUCTS for unit in units]
    return timed + [of(kind, event_time=lambda event: event["t"]) for kind in STRUCTS] + [
        of(kind) for kind in STRUCTS + OTHERS
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_no_record_raises(seed):
    dice = random.Random(seed)
    every = contracts(dice)
    taken = refused = 0
    for _ in range(2_000):
        count = dice.choice([1, 4])
        records = [(dice.choice(KEYS), value(dice), dice.choice(HEADERS)) for _ in range(count)]
        checked = dice.choice(every).check(*map(list, zip(*records, strict=True)))
        times = checked.times or []
        assert len(checked.events) + len(checked.broken) == len(records)
        assert len(times) in {0, len(checked.events)}
        assert all(type(time) is int for time in times)  # Kafka carries no other
        taken, refused = taken + len(checked.events), refused + len(checked.broken)
    assert min(taken, refused) > 100
