"""Every n events of a key are a window, through evictions, crashes and lost disks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import App
from engine.errors import ConfigError
from engine.testing import Driver
from tables.codec import key_codec
from tables.counted import Counted, CountedPartition
from tables.window import Aggregate
from tests.unit.harness import Harness, scripts


def add(total, x):
    total.append(x)
    return total


LIST = Aggregate(list, add)


def counted(shape, emission, cache_entries=100_000):
    def make(store, emit):
        def copy(key, start, end, value, ts):
            emit(key, start, end, tuple(value), ts)

        return CountedPartition(
            "c", store, counted=Counted(*shape), key=key_codec(str), aggregate=LIST,
            emission=emission, emit=copy if emission else None, cache_entries=cache_entries,
        )  # fmt: skip

    return make


def row(key, events):
    times = [ts for ts, _ in events]
    return key, min(times), max(times), tuple(x for _, x in events), max(times)


class Brute:
    """All events of a key in a list; windows are slices of it."""

    def __init__(self, size, step):
        self.size, self.step = size, step
        self.events = {}
        self.updates, self.final = [], []

    def feed(self, key, ts, x):
        mine = self.events.setdefault(key, [])
        mine.append((ts, x))
        n = len(mine)
        begins = [start for start in range(0, n, self.step) if start + self.size >= n]
        self.updates += [row(key, mine[start:]) for start in begins]
        self.final += [row(key, mine[start:]) for start in begins if start + self.size == n]

    def open(self):
        return [
            row(key, mine[start:])[:4]
            for key, mine in sorted(self.events.items(), key=lambda item: item[0].encode())
            for start in range(0, len(mine), self.step)
            if start + self.size > len(mine)
        ]


shapes = st.sampled_from([(1, 1), (3, 3), (3, 1), (5, 2), (4, 3)])
events = st.lists(
    st.tuples(st.sampled_from(["a", "b", "é"]), st.integers(-9, 90), st.integers(0, 99)),
    max_size=40,
)


@given(shapes, events, scripts, st.sampled_from(["final", "updates"]), st.integers(0, 2))
def test_windows_are_slices_whatever_happens_in_between(shape, events, script, emission, cache):
    brute = Brute(*shape)
    for event in events:
        brute.feed(*event)
    harness = Harness(counted(shape, emission, cache), lambda part, event: part.update(*event))
    harness.run(events, script)
    assert harness.emitted == (brute.final if emission == "final" else brute.updates)
    held = [(*each[:3], tuple(each[3])) for each in harness.partition.items()]
    assert held == brute.open()
    harness.partition.close_all()
    assert harness.partition.items() == []
    rest = [(*each, each[2]) for each in brute.open()] if emission == "final" else []
    assert harness.emitted[len(brute.final if emission == "final" else brute.updates) :] == rest


def test_a_full_tumbling_window_leaves_nothing():
    harness = Harness(counted((2, 2), "final"), lambda part, event: part.update(*event))
    for number in range(4):
        harness.feed(("k", number, number))
    harness.commit()
    assert harness.partition.items() == []
    assert harness.store.scan("c") == []
    assert all(value is None for _, value in harness.log)


def app_of(**options):
    app = App("fives")
    source, out = app.topic("in"), app.topic("out")
    table = app.Table("fives", default=list, reduce=add, **options).counted(
        5, step=2, sink=out, into=lambda key, window, value: [key, window.start, window.end, value]
    )

    @app.agent(source)
    async def collect(stream):
        async for key, value in stream.items():
            table.update(None if key is None else key.decode(), value)

    return app


@pytest.mark.parametrize("crashes", [False, True])
def test_the_driver_sees_the_same_with_a_crash_after_every_event(crashes):
    with Driver(app_of(key_type=str, cache_entries=1)) as driver:
        for number in range(10):
            driver.pipe("in", key="k", value=number, timestamp=100 - number)
            driver.pipe("in", key="other", value=number, timestamp=number)
            driver.pipe("in", key=None, value=number, timestamp=number)
            if crashes:
                driver.crash()
                driver.restart()
        mine = [(each.value, each.timestamp) for each in driver.read("out") if each.key == b"k"]
        assert mine == [
            (["k", 96, 100, [0, 1, 2, 3, 4]], 100),
            (["k", 94, 98, [2, 3, 4, 5, 6]], 98),
            (["k", 92, 96, [4, 5, 6, 7, 8]], 96),
        ]


@pytest.mark.parametrize(("size", "step"), [(0, None), (2, 3), (2, 0)])
def test_shapes_that_are_none_are_refused(size, step):
    with pytest.raises(ConfigError, match="step <= size"):
        App("none").Table("t", default=list, reduce=add).counted(size, step)


def test_a_window_needs_something_to_reduce_by():
    with pytest.raises(ConfigError, match="reduce="):
        App("none").Table("t").counted(3)
