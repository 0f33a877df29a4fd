"""One line of an Apache or nginx access log, combined or common format."""

import calendar
import datetime as dt
import re
from functools import lru_cache

import msgspec

_MONTHS = {
    name: number
    for number, name in enumerate(
        b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(),
        start=1,
    )
}

# The quoted parts are possessive and the time has a fixed width, so the match takes time
# linear in the line whatever the line holds. A line cut off inside the agent still says who
# asked for what and when: the closing quote may be missing.
_LINE = re.compile(
    rb"(?P<host>\S+) \S+ (?P<user>.+?) "
    rb"\[(\d\d)/([A-Z][a-z]{2})/(\d{4}):(\d\d):(\d\d):(\d\d) ([+-])(\d\d)(\d\d)\] "
    rb'"(?P<request>(?:[^"\\]++|\\.)*+)" (?P<status>\d{3}) (?P<bytes>\d{1,18}|-)(?!\S)'
    rb'(?: "(?P<referer>(?:[^"\\]++|\\.)*+)" "(?P<agent>(?:[^"\\]++|\\.)*+))?'
)
_REQUEST_PARTS = 3


class LogLine(msgspec.Struct, frozen=True, gc=False):
    """What a line of an access log says; a dash in the log is None, or no bytes."""

    host: str
    user: str | None
    time: int
    """Milliseconds since 1970, UTC."""
    method: str
    path: str
    """As requested, query included; the whole request where it is not three words."""
    protocol: str
    status: int
    size: int = msgspec.field(name="bytes")
    referer: str | None = None
    agent: str | None = None


@lru_cache(maxsize=64)
def _day_seconds(year: bytes, month: bytes, day: bytes) -> int | None:
    number = _MONTHS.get(month)
    if number is None:
        return None
    try:
        date = dt.date(int(year), number, int(day))
    except ValueError:
        return None
    return calendar.timegm(date.timetuple())


def _time_ms(match: re.Match[bytes]) -> int | None:
    day, month, year, hour, minute, second, sign, zone_hours, zone_minutes = match.group(
        3, 4, 5, 6, 7, 8, 9, 10, 11
    )
    start = _day_seconds(year, month, day)
    if start is None or hour > b"23" or minute > b"59" or second > b"60":
        return None
    zone = int(zone_hours) * 3600 + int(zone_minutes) * 60
    local = start + int(hour) * 3600 + int(minute) * 60 + int(second)
    seconds = local + zone if sign == b"-" else local - zone
    return seconds * 1000 if seconds >= 0 else None


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _or_none(raw: bytes | None) -> str | None:
    return None if raw is None or raw == b"-" else _text(raw)


def parse_log_line(line: bytes) -> LogLine | None:
    r"""Read one line of a log, or return None where it is no such line.

    Escapes the server wrote (``\"``, ``\xe4``) stay as they are; bytes that are not UTF-8 become
    U+FFFD. Fields after the agent are passed over.
    """
    match = _LINE.match(line)
    if match is None:
        return None
    time = _time_ms(match)
    if time is None:
        return None
    request = _text(match["request"])
    words = request.split(" ")
    if len(words) == _REQUEST_PARTS:
        method, path, protocol = words
    else:
        method, path, protocol = "", request, ""
    size = match["bytes"]
    return LogLine(
        host=_text(match["host"]),
        user=_or_none(match["user"]),
        time=time,
        method=method,
        path=path,
        protocol=protocol,
        status=int(match["status"]),
        size=0 if size == b"-" else int(size),
        referer=_or_none(match["referer"]),
        agent=_or_none(match["agent"]),
    )
