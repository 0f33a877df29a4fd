"""What docs/patterns.md says comes of an input is what comes of it."""

import re
from pathlib import Path

import pytest

from engine import Pattern, Timeout, skip_past_last_event, skip_to_first, skip_to_last, skip_to_next
from tables.codec import Codec
from tables.memory import MemoryStore
from tables.pattern import PatternPartition, Plan

PAGE = (Path(__file__).parents[2] / "docs" / "patterns.md").read_text()
ROW = re.compile(r"^\| `(begin\(.*?)` \| `(.*?)` \| (.*?) \|$", re.MULTILINE)
STEPS = {"next", "followed_by", "followed_by_any", "not_next", "not_followed_by"}


class Lettered:
    """A pattern whose step ``b`` takes the events that begin with ``B``, as on the page."""

    def __init__(self, pattern):
        self.pattern = pattern

    def __getattr__(self, name):
        def call(*args, **options):
            made = getattr(self.pattern, name)(*args, **options)
            return Lettered(made.where(letter(args[0])) if name in STEPS else made)

        return call


def letter(name):
    return lambda event: event[0] == name.upper()


def begin(name, **options):
    return Lettered(Pattern.begin(name, **options).where(letter(name)))


def number(event):
    return int(event[1:])


NAMES = {
    "begin": begin,
    "number": number,
    "is_x": letter("x"),
    "skip_to_next": skip_to_next,
    "skip_past_last_event": skip_past_last_event,
    "skip_to_first": skip_to_first,
    "skip_to_last": skip_to_last,
}


def found(expression, events):
    """Return what comes out, in the page's words: an event's number is its time in seconds."""
    pattern = eval(expression, NAMES).pattern
    plan = Plan("p", pattern.compiled(), pattern.shape(), pattern.skip, timeouts=True)
    value = Codec(str.encode, bytes.decode)
    partition = PatternPartition("p", MemoryStore(), plan=plan, value=value)
    results = []
    for event in events.split():
        results += partition.step(0, b"k", 1000 * number(event), event)
    results += partition.close_all()
    return [said(each.value) for each in results]


def said(result):
    events = sorted((e for those in result.events.values() for e in those), key=number)
    late = f"timeout at {result.end // 1000}: " if isinstance(result, Timeout) else ""
    return late + " ".join(events)


@pytest.mark.parametrize(("expression", "events", "cell"), ROW.findall(PAGE))
def test_what_the_page_says_comes_of_an_input_does(expression, events, cell):
    assert found(expression, events) == re.findall(r"`(.*?)`", cell)


def test_there_are_rows_on_the_page():
    assert len(ROW.findall(PAGE)) > 30
