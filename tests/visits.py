"""An access log's visits, worked out the plain way."""

from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from engine.torture.oracle import SESSION_GAP_MS


class Visit(NamedTuple):
    """A session in an access log."""

    start: int
    end: int
    requests: int


def sessions_from_access_log(path: Path) -> dict[str, list[Visit]]:
    """Per client address, the log's visits: a gap of more than 30 minutes starts a new one."""
    times: dict[str, list[int]] = {}
    with path.open(encoding="utf-8", errors="replace", newline="\n") as lines:
        for line in lines:
            address, _, rest = line.partition(" ")
            stamp = rest[rest.index("[") + 1 : rest.index("]")]
            when = datetime.strptime(stamp, "%d/%b/%Y:%H:%M:%S %z")
            times.setdefault(address, []).append(int(when.timestamp()) * 1000)
    return {address: visits_of(sorted(at)) for address, at in times.items()}


def visits_of(times: list[int]) -> list[Visit]:
    visits: list[Visit] = []
    for time in times:
        if visits and time - visits[-1].end <= SESSION_GAP_MS:
            last = visits[-1]
            visits[-1] = Visit(last.start, time, last.requests + 1)
        else:
            visits.append(Visit(time, time, 1))
    return visits
