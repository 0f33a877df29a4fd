"""The guard against event times that lie far in the future.

Stream time is the largest event time of a partition. One broken clock, or microseconds taken for
milliseconds, would close every window of a task and make all that follows late. So an event that
is more than ``future_limit_ms`` ahead becomes a dead letter and does not move stream time.

Ahead of what? Of the wall clock, which no event can be ahead of. And, where the event time comes
out of the value, of the record's own timestamp as well: an event was sent when it had happened.
That one says the same of a record today and when the topic is read again in a year, when the wall
clock has nothing to say against it any more. Records without a timestamp are left to the clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.contracts.limits import Violation

if TYPE_CHECKING:
    from engine.contracts.contract import Checked
    from engine.record import Batch, Run

_SO_WHAT = (
    "it would close every window, so it does not count; if events may be so far ahead, set "
    "future_limit_ms higher, or to 0"
)


def refuse(run: Run, batch: Batch, checked: Checked, now_ms: int, limit_ms: int) -> Run:
    """Return the run without the events that are too far ahead, which join what was broken.

    Args:
        batch: what the run was decoded from.
        checked: gets the violations.
        now_ms: the wall clock.
        limit_ms: so much is not too far.
    """
    times, stamps = run.times, run.timestamps
    if not times:
        return run
    latest = max(times)
    if latest <= now_ms + limit_ms and (times is stamps or latest <= min(stamps) + limit_ms):
        return run  # nearly always: two looks at a column
    ahead = {}
    for offset, time, stamp in zip(run.offsets, times, stamps, strict=True):
        if time > now_ms + limit_ms:
            ahead[offset] = _violation("the clock", limit_ms)
        elif 0 < stamp < time - limit_ms:
            ahead[offset] = _violation("the record's own timestamp", limit_ms)
    if not ahead:
        return run
    places = {offset: index for index, offset in enumerate(batch.offsets)}
    checked.broken = sorted(
        [*checked.broken, *((places[offset], why) for offset, why in ahead.items())],
        key=lambda broken: broken[0],
    )
    return run.without(set(ahead))


def _violation(what: str, limit_ms: int) -> Violation:
    seconds = f"{limit_ms / 1000:g} s"
    message = f"its event time is more than {seconds} ahead of {what}: {_SO_WHAT}"
    return Violation("event_time.future", "", message)
