"""One partition of a pattern's state: what every key waits for, over the store.

An event waits until the watermark has come to its time and then goes through its key's partial
matches (:mod:`tables.partials`), in the order of time and, at one time, of arrival, as in Flink CEP
2.3. The watermark is ``delay`` and a millisecond behind stream time, as Flink's bounded disorder
has it: an event exactly ``delay`` late is in time. What arrives at or before the watermark is late.

A key's things are numbered, and a store entry holds those with 32 consecutive numbers: one entry
for most keys, while of a key with ten thousand partial matches only the parts that have changed are
written. Timers are hints, as for sessions: one a key, at the next time at which something is due.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

import msgspec

from tables.match import Late, Match, Timeout
from tables.nfa import Sieve
from tables.operator import Result
from tables.partials import NEVER, Partials, Skip
from tables.runs import Complete, Held, Link, Run
from tables.store import TIMERS
from tables.table import ENTRY_BYTES, Cut, Overlay
from tables.timers import Timers, timer_rows
from tables.window import NO_TIME

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tables.codec import Codec
    from tables.nfa import Automaton
    from tables.partials import Found
    from tables.steps import Step
    from tables.store import Change, Store

_SHIFT = 5  # 32 things an entry
_NUMBER_BYTES = 4
_THING_BYTES = 400  # an event, a link or a run in memory, about
_COMPLETE = (1 << 32) - 1  # the number of the entry with the matches that have to wait
_encode_page = msgspec.msgpack.Encoder().encode
_decode_page = msgspec.msgpack.Decoder(tuple[int, list[tuple[Any, ...]]]).decode


class Plan(NamedTuple):
    """A pattern as its partitions need it.

    Attributes:
        name: what the matches say they are of.
        shape: tells patterns apart whose stored partial matches must not be mixed up.
        delay_ms: how far events may be behind the newest one.
        timeouts, late: whether these are results too.
        limit: so many partial matches a key at most.
        prompt: a limit between neighbours (``neighbours_ms``) is kept by time. Flink looks at it
            only when another event of the key is worked on.
    """

    name: str
    automaton: Automaton
    shape: int
    skip: Skip = Skip()
    delay_ms: int = 0
    timeouts: bool = False
    late: bool = False
    limit: int = 100_000
    prompt: bool = True


def shape_of(steps: Iterable[Step]) -> int:
    """Return a number that differs for patterns whose states differ."""
    names = ("name", "contiguity", "least", "most", "quantified", "optional", "greedy", "inside")
    text = repr([[getattr(step, name) for name in names] for step in steps])
    return crc32(text.encode())


class PatternPartition(Overlay):
    """The partial matches of one partition. Not safe for threads; never awaits.

    Attributes:
        late: how many events came after the watermark.
        dropped: how many partial matches were dropped because their key had too many.
    """

    __slots__ = (
        "_complete", "_dirty", "_flying", "_lag", "_live", "_plan", "_sieve", "_things",
        "_timers", "_value", "dropped", "late", "stream_time",
    )  # fmt: skip

    def __init__(
        self,
        family: str,
        store: Store,
        *,
        plan: Plan,
        value: Codec[Any],
        cache_entries: int = 200_000,
    ) -> None:
        super().__init__(family, store, cache_entries)
        self.stream_time = NO_TIME
        self.late = 0
        self.dropped = 0
        self._lag = plan.delay_ms + 1
        sieve = Sieve(plan.automaton, skips=plan.skip.to != "nothing")
        self._sieve = sieve if sieve.usable else None
        self._plan = plan
        self._value = value
        self._live: dict[bytes, Partials] = {}
        self._dirty: dict[bytes, None] = {}
        self._flying: dict[bytes, None] = {}
        self._things = 0  # of all keys in memory, as of the last cut
        self._complete = not store.scan(family, limit=1)
        self._timers = Timers(family, store)

    # -- events and time ---------------------------------------------------------------------

    def step(self, side: int, key: bytes | None, ts: int, value: Any) -> Sequence[Result]:
        """Take an event; return what comes of it, and of the time that it moves on.

        One without a key belongs nowhere and one without a value says nothing: both are dropped.
        """
        if key is None or value is None:
            return ()
        results = self.hold(key, ts, value)
        if ts > self.stream_time:
            self.stream_time = ts
            if self._timers.next_ms <= ts - self._lag:
                return [*results, *self.advance(ts - self._lag)]
        return results

    def hold(self, key: bytes, ts: int, value: Any) -> Sequence[Result]:
        """Let an event wait for its time. One that is late is the result, where that was asked."""
        if ts <= self.stream_time - self._lag:
            self.late += 1
            return (Result(key, ts, Late(self._plan.name, ts, value)),) if self._plan.late else ()
        if self._sieve is not None and self._sieve.holds_back(value):
            return ()
        partials = self._live.get(key)
        if partials is None:
            partials = self._load(key)
        partials.add(ts, value)
        self._dirty[key] = None
        if ts < partials.armed:
            partials.armed = ts
            self._timers.set(ts, key)
        return ()

    def advance(self, watermark: int) -> list[Result]:
        """Move the watermark on (ms): work on the events that it has come to, key by key.

        Keys come in the order of what is due first.
        """
        self.stream_time = max(self.stream_time, watermark + self._lag)
        results: list[Result] = []
        timers = self._timers
        while timers.next_ms <= watermark:
            for key in dict.fromkeys(timers.due(watermark)):
                partials = self._due(key)
                self._report(results, key, partials.advance(watermark))
                self._settle(key, partials)
        return results

    def close_all(self) -> list[Result]:
        """Work on everything that waits, and give up what has a limit: the input has ended."""
        results: list[Result] = []
        timers = self._timers
        while timers.next_ms < NEVER:
            for key in dict.fromkeys(timers.due(NEVER - 1)):
                partials = self._due(key)
                while (due := partials.due()) < NEVER:
                    self._report(results, key, partials.advance(due))
                self._settle(key, partials)
        return results

    def _due(self, key: bytes) -> Partials:
        partials = self._live.get(key)
        if partials is None:
            partials = self._load(key)
        partials.armed = NEVER
        return partials

    def _settle(self, key: bytes, partials: Partials) -> None:
        if partials.touched or partials.complete_touched:
            self._dirty[key] = None
        self.dropped += partials.dropped
        partials.dropped = 0
        due = partials.due()
        if due < NEVER:
            partials.armed = due
            self._timers.set(due, key)

    def _report(self, results: list[Result], key: bytes, found: list[Found]) -> None:
        """Turn what was found into what the agent sees."""
        name = self._plan.name
        for ts, held, timeout in found:
            if timeout and not self._plan.timeouts:
                continue
            times = [event.ts for events in held.values() for event in events]
            events = {step: [event.value for event in those] for step, those in held.items()}
            made: Match | Timeout
            if timeout:
                made = Timeout(name, events, min(times), ts)
            else:
                made = Match(name, events, min(times), max(times))
            results.append(Result(key, ts, made))

    # -- the store ---------------------------------------------------------------------------

    def _load(self, key: bytes) -> Partials:
        plan = self._plan
        partials = Partials(plan.automaton, plan.skip, limit=plan.limit, prompt=plan.prompt)
        self._live[key] = partials
        if self._complete:
            return partials
        prefix = _prefix(key)
        pages = self._store.scan(
            self.family, prefix + b"\0" * _NUMBER_BYTES, prefix + b"\xff" * _NUMBER_BYTES + b"\0"
        )
        if pages:
            _fill(partials, pages, plan.shape, self._value)
            partials.armed = partials.due()
            self._count(partials)
        return partials

    def cut(self) -> Cut:
        """Return what changed since the last cut, encoded once for changelog and store alike."""
        changes: list[Change] = []
        for key in self._dirty:
            partials = self._live[key]
            self._write(_prefix(key), partials, changes)
            self._count(partials)
        self._flying, self._dirty = self._dirty, {}
        self.entry_bytes = max(ENTRY_BYTES, self.held() // max(1, len(self._live)))
        return Cut(changes, {self.family: changes, TIMERS: self._timers.cut()})

    def _write(self, prefix: bytes, partials: Partials, changes: list[Change]) -> None:
        """Encode the entries of a key that have changed."""
        things, shape, encode = partials.things, self._plan.shape, self._value.encode
        pages: dict[int, list[Any]] = {}
        for page in {number >> _SHIFT for number in partials.touched}:
            numbers = range(page << _SHIFT, (page + 1) << _SHIFT)
            pages[page] = [_row(things[n], encode) for n in numbers if n in things]
        partials.touched.clear()
        if partials.complete_touched:
            pages[_COMPLETE] = [(*match.start, match.last.id) for match in partials.complete]
            partials.complete_touched = False
        for page, rows in pages.items():
            if rows:
                partials.pages.add(page)
            elif page in partials.pages:
                partials.pages.discard(page)
            else:
                continue  # it came and went between two commits
            entry = prefix + page.to_bytes(_NUMBER_BYTES, "big")
            changes.append((entry, _encode_page((shape, rows)) if rows else None))

    def committed(self) -> None:
        """The last cut is in the store: bound the memory again."""
        self._timers.committed()
        for key in self._flying:
            if key not in self._dirty and not self._live[key].things:
                self._let_go(key)
        self._flying = {}
        for key in self.surplus(self._live, self._dirty):
            self._complete = False
            self._let_go(key)

    def _count(self, partials: Partials) -> None:
        self._things += len(partials.things) - partials.counted
        partials.counted = len(partials.things)

    def _let_go(self, key: bytes) -> None:
        self._things -= self._live.pop(key).counted

    def held(self) -> int:
        """Return about how many bytes of memory the entries take."""
        return len(self._live) * ENTRY_BYTES + self._things * _THING_BYTES

    def dirty(self) -> int:
        """Return about how many bytes the changes since the last cut take."""
        return len(self._dirty) * self.entry_bytes

    def items(self) -> list[tuple[bytes, int, dict[str, list[Any]]]]:
        """Return key, start (ms) and events by step of every partial match, key by key."""
        keys = {_key_of(entry) for entry, _ in self._store.scan(self.family)} | set(self._live)
        rows = []
        for key in sorted(keys):
            partials = self._live.get(key) or self._load(key)
            rows += [(key, start, events) for start, events in partials.under_way()]
        return rows


def _prefix(key: bytes) -> bytes:
    """Return what a key's entries begin with, and no other key's."""
    return len(key).to_bytes(_NUMBER_BYTES, "big") + key


def _key_of(entry: bytes) -> bytes:
    return entry[_NUMBER_BYTES:-_NUMBER_BYTES]


def _row(thing: Held | Link | Run, encode: Any) -> tuple[Any, ...]:
    if type(thing) is Held:
        if thing.raw is None:
            thing.raw = encode(thing.value)
        return (thing.id, 0 if thing.waiting else 1, thing.ts, thing.raw)
    if type(thing) is Link:
        return (thing.id, 2, thing.event.id, thing.step, thing.before.id if thing.before else 0)
    assert type(thing) is Run
    assert thing.last is not None
    return (thing.id, 3, thing.state, thing.last.id, *thing.start, thing.previous_ts, thing.place)


def _rows(raw: bytes, shape: int) -> list[tuple[Any, ...]]:
    stored, rows = _decode_page(raw)
    if stored != shape:
        raise ValueError(
            "the stored partial matches are of another pattern: give the changed one a new name"
        )
    return rows


def _fill(
    partials: Partials, pages: list[tuple[bytes, bytes]], shape: int, value: Codec[Any]
) -> None:
    """Make a key's things of their entries."""
    rows: dict[int, tuple[Any, ...]] = {}
    waiting_matches: list[tuple[Any, ...]] = []
    for entry, raw in pages:
        page = int.from_bytes(entry[-_NUMBER_BYTES:], "big")
        if page == _COMPLETE:
            waiting_matches = _rows(raw, shape)
        else:
            rows |= {row[0]: row for row in _rows(raw, shape)}
        partials.pages.add(page)
    things: dict[int, Held | Link | Run] = {}
    for number, row in rows.items():
        if row[1] <= 1:
            event = things[number] = Held(number, row[2], value.decode(row[3]), waiting=not row[1])
            event.raw = row[3]
    links: dict[int, Link] = {}
    for number in sorted(number for number, row in rows.items() if row[1] == 2):  # noqa: PLR2004
        _, _, event_id, step, before = rows[number]
        held = things[event_id]
        assert type(held) is Held
        things[number] = links[number] = Link(number, held, step, links[before] if before else None)
    for number, row in rows.items():
        if row[1] == 3:  # noqa: PLR2004
            _, _, state, last, start_ts, start_id, previous_ts, place = row
            start = (start_ts, start_id)
            things[number] = Run(number, state, links[last], start, previous_ts, place)
    complete = [Complete((ts, number), links[last]) for ts, number, last in waiting_matches]
    partials.put(list(things.values()), complete)


def restored(family: str, changes: list[Change], plan: Plan) -> dict[str, list[Change]]:
    """Return what a store must hold for these changelog records: them, and their timers."""
    automaton = plan.automaton
    timers: list[tuple[int, bytes]] = []
    for entry, raw in changes:
        if raw is None or entry.endswith(b"\xff" * _NUMBER_BYTES):
            continue
        dues = [NEVER]
        for row in _rows(raw, plan.shape):
            if row[1] == 0:
                dues.append(row[2])
            elif row[1] == 3:  # noqa: PLR2004
                window = automaton.states[row[2]].window_ms
                if automaton.within_ms:
                    dues.append(row[4] + automaton.within_ms)
                if window and plan.prompt:
                    dues.append(row[6] + window)
        due = min(dues)
        if due < NEVER:
            timers.append((due, _key_of(entry)))
    return {family: changes, TIMERS: timer_rows(family, timers)}
