"""A web server's access log as raw events.

A request becomes an event of the visitor at the client's address. What kind of event, by the first
rule that fits (method, path without its query):

1. POST to a path with a part named login, signin, wp-login or session: ``login``.
2. A path with a part named logout or signout: ``logout``.
3. A path with a part named cart, checkout, buy, order or purchase: ``purchase``.
4. Any method but GET: ``click``, since nobody looks at the answer to a POST or a HEAD.
5. A file a page brings along or offers (image, style, script, font, download): ``click``.
6. Anything else: ``page_view``, whatever its status.

`value` is the size of the answer in bytes, at most 10,000. `time_on_page` is the gap in seconds to
the visitor's next request when that comes within 30 minutes, or else 0.
"""

import heapq
from bisect import insort
from collections import deque
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Final

import msgspec

from engine.connect.accesslog import LogLine, parse_log_line

SESSION_GAP_MS: Final = 30 * 60_000
MAX_DISORDER_MS: Final = 60_000
"""How much earlier than the newest line before it a line of the log may be, gaps still exact."""

_MAX_VALUE: Final = 10_000
_MAX_PAGE: Final = 200
_MAX_PROPERTY: Final = 200
_OCTETS: Final = 4
_LOGIN: Final = frozenset({"login", "signin", "sign-in", "wp-login", "session", "sessions"})
_LOGOUT: Final = frozenset({"logout", "signout", "sign-out"})
_PURCHASE: Final = frozenset({"cart", "checkout", "buy", "order", "orders", "purchase"})
# fmt: off
_STATIC: Final = frozenset({
    "avif", "bmp", "css", "csv", "eot", "exe", "gif", "gz", "ico", "iso", "jar", "jpeg",
    "jpg", "js", "json", "map", "mjs", "mp3", "mp4", "otf", "pdf", "png", "svg", "tgz",
    "ttf", "txt", "wasm", "webm", "webmanifest", "webp", "woff", "woff2", "xz", "zip",
})
# fmt: on

_encode = msgspec.json.Encoder().encode


def user_number(address: str) -> int:
    """The visitor's number: from the address alone, so the same in every process.

    An IPv4 address is its own 32 bits, so two of them never share a number. Any other address
    (IPv6, a host name) is 2**32 plus 62 bits of its hash: never an IPv4 address's number, and two
    of a million such addresses share one with a chance of about 1 in 9 million.
    """
    parts = address.split(".")
    if len(parts) == _OCTETS and all(part.isascii() and part.isdigit() for part in parts):
        octets = [int(part[:4]) for part in parts]
        if max(octets) <= 255 and ".".join(map(str, octets)) == address:  # noqa: PLR2004
            return int.from_bytes(bytes(octets), "big")
    hashed = int.from_bytes(blake2b(address.encode(), digest_size=8).digest(), "big")
    return (1 << 32) + (hashed >> 2)


def event_type(method: str, path: str) -> str:
    """What kind of event a request is: the rules above."""
    parts = path.lower().split("/")
    names = {part.partition(".")[0] for part in parts}
    if method == "POST" and names & _LOGIN:
        return "login"
    if names & _LOGOUT:
        return "logout"
    if names & _PURCHASE:
        return "purchase"
    _, dot, extension = parts[-1].rpartition(".")
    return "click" if method != "GET" or (dot and extension in _STATIC) else "page_view"


def access_log_events(lines: Iterable[bytes]) -> Iterator[tuple[bytes | None, bytes, int]]:
    """Turn the lines of a log into raw events: key, value, timestamp in milliseconds.

    There are as many events as lines: a line of no known form comes out as it is, without a key
    and with the newest time before it, for the contract to refuse. Events come in the order of
    their times, then of their lines, as long as no line is more than `MAX_DISORDER_MS` earlier
    than the newest before it. Memory holds the last 31 minutes of the log, no more: a line that
    is earlier still is passed on when it is met, and loses no more than its gap.
    """
    held: list[tuple[int, int, bytes, LogLine | None]] = []  # a heap, by time, then line
    upcoming: dict[str, deque[tuple[int, int]]] = {}  # per address, in the order to come
    newest = 0
    for number, raw in enumerate(lines, start=1):
        line = raw.rstrip(b"\r\n")
        parsed = parse_log_line(line)
        time = newest if parsed is None else parsed.time
        if parsed is not None:
            insort(upcoming.setdefault(parsed.host, deque()), (time, number))
        heapq.heappush(held, (time, number, line, parsed))
        newest = max(newest, time)
        while held[0][0] < newest - SESSION_GAP_MS - MAX_DISORDER_MS:
            yield _next_event(held, upcoming)  # never the newest, so some are always held
    while held:
        yield _next_event(held, upcoming)


def _next_event(
    held: list[tuple[int, int, bytes, LogLine | None]],
    upcoming: dict[str, deque[tuple[int, int]]],
) -> tuple[bytes | None, bytes, int]:
    time, number, line, parsed = heapq.heappop(held)
    if parsed is None:
        return None, line, time
    of_address = upcoming[parsed.host]
    of_address.popleft()
    if of_address:
        gap = of_address[0][0] - time
    else:
        gap = 0
        del upcoming[parsed.host]
    return _event(number, line, parsed, gap if gap <= SESSION_GAP_MS else 0)


def _event(
    number: int, line: bytes, parsed: LogLine, gap_ms: int
) -> tuple[bytes | None, bytes, int]:
    user = f"user_{user_number(parsed.host)}"
    path = parsed.path.partition("?")[0]
    properties = {"method": parsed.method, "status": str(parsed.status)}
    if parsed.agent:
        properties["agent"] = parsed.agent[:_MAX_PROPERTY]
    if parsed.referer:
        properties["referrer"] = parsed.referer.partition("?")[0][:_MAX_PROPERTY]
    event = {
        # The line's hash keeps the ids of two logs apart; its number, those of two equal lines.
        "id": f"log-{number:06d}-{blake2b(line, digest_size=4).hexdigest()}",
        "timestamp": parsed.time,
        "user_id": user,
        "event_type": event_type(parsed.method, path),
        "value": min(parsed.size, _MAX_VALUE),
        "page": path[:_MAX_PAGE],
        "time_on_page": gap_ms // 1000,
        "properties": properties,
    }
    return user.encode(), _encode(event), parsed.time
