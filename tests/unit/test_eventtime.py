"""An event's time comes out of a field, whatever its unit, or out of a function."""

from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest

from engine import Contract
from engine.errors import ConfigError


class Point(msgspec.Struct):
    at: float | int
    when: datetime | None = None


class Dated(msgspec.Struct):
    at: datetime


def time_of(event, unit="ms", event_time="at", kind=Point):
    return Contract.of("c", kind, event_time=event_time, time_unit=unit).event_time(event)


@pytest.mark.parametrize(
    ("unit", "number"),
    [("s", 1_736_121_600.5), ("ms", 1_736_121_600_500), ("us", 1_736_121_600_500_999),
     ("ns", 1_736_121_600_500_999_999)],
)  # fmt: skip
def test_a_number_is_taken_in_its_unit(unit, number):
    assert time_of(Point(number), unit) == 1_736_121_600_500
    assert time_of(Point(number), unit, lambda event: event.at) == 1_736_121_600_500


def test_a_datetime_has_a_unit_of_its_own():
    utc = datetime(2025, 1, 6, 0, 0, 0, 500_999, tzinfo=UTC)
    east = utc.astimezone(timezone(timedelta(hours=2)))
    naive = utc.replace(tzinfo=None)
    times = {time_of(Dated(each), kind=Dated) for each in (utc, east, naive)}
    assert times == {1_736_121_600_500}


def test_before_the_epoch_is_below_zero():
    """So the contract's rule refuses it, and does not take it for something late in 1969."""
    assert time_of(Dated(datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)), kind=Dated) == -1_000
    assert time_of(Point(-1), "us") == -1


@pytest.mark.parametrize("number", [b"1e308", b"-1e308", b"1e14"])
def test_a_time_that_is_none_breaks_the_contract_in_any_unit(number):
    contract = Contract.of("c", Point, event_time="at", time_unit="s")
    checked = contract.check([None], [b'{"at":%b}' % number])
    assert [violation.rule for _, violation in checked.broken] == ["event_time.range"]


def test_the_others_keep_their_own_times():
    contract = Contract.of("c", Point, event_time="at")
    checked = contract.check([None] * 4, [b'{"at":%d}' % at for at in (5, -1, 7, 1 << 60)])
    assert checked.times == [event.at for event in checked.events] == [5, 7]
    assert ([index for index, _ in checked.broken], checked.kept) == ([1, 3], [0, 2])


class Loosely(msgspec.Struct):
    at: int | None = None
    when: datetime | None = None
    name: str = ""


@pytest.mark.parametrize("field", ["at", "when"])
def test_an_event_that_does_not_say_its_time_breaks_the_contract(field):
    """It ended the worker: a field that may be null is a record away from null."""
    contract = Contract.of("c", Loosely, event_time=field)
    good = b'{"at":5,"when":"1970-01-01T00:00:00.005Z"}'
    checked = contract.check([None] * 3, [good, b"{}", good])
    assert checked.times == [5, 5]
    assert [(index, why.rule) for index, why in checked.broken] == [(1, "event_time.range")]


def test_a_function_that_stumbles_over_an_event_refuses_it():
    contract = Contract.of("c", None, event_time=lambda event: 1_000 / event["at"])
    raws = [b'{"at":4}', b'{"at":0}', b"{}", b"[]", b'{"at":"x"}', b'{"at":3}']
    checked = contract.check([None] * len(raws), raws)
    assert checked.times == [250, 333]  # whole: Kafka carries no other
    assert [index for index, _ in checked.broken] == [1, 2, 3, 4]


def test_of_any_json_a_field_is_an_item():
    contract = Contract.of("c", None, event_time="at", key_field="who")
    [event] = contract.check([None], [b'{"at":5,"who":"ann"}']).events
    assert (contract.event_time(event), contract.key_field(event)) == (5, "ann")


@pytest.mark.parametrize("what", ["event_time", "key_field"])
def test_a_field_that_is_not_there_is_an_error_at_once(what):
    with pytest.raises(ConfigError, match=f"{what}='then': Point has no such field; it has at, wh"):
        Contract.of("c", Point, **{what: "then"})


def test_a_text_is_no_time():
    with pytest.raises(ConfigError, match="event_time='name': that field is never a time; give"):
        Contract.of("c", Loosely, event_time="name")


def test_an_unknown_unit_is_an_error_at_once():
    with pytest.raises(ConfigError, match="time_unit='min': an event time is in 's', 'ms'"):
        Contract.of("c", Point, event_time="at", time_unit="min")
