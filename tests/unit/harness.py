"""One table partition as a task drives it: cuts, commits, crashes, lost disks, replays.

A cut flies until it lands. A crash loses what was not cut; what had been cut is lost too, unless
Kafka has it (``kafka=True``): then only the store lacks it and it comes back from the changelog.
Events that are lost are fed again, as they are from a source topic.
"""

from __future__ import annotations

from hypothesis import strategies as st

from tables.memory import MemoryStore
from tables.window import NO_TIME

ACTIONS = ("cut", "land", "crash", "crash after the commit", "lose the disk")


class Harness:
    """A partition, its store, its changelog, and what it has emitted.

    Args:
        make: (store, emit) -> partition.
        apply: (partition, event); how one event changes it.
    """

    def __init__(self, make, apply=None, *, chunk=3):
        self._make = make
        self._apply = apply
        self._chunk = chunk
        self.store = MemoryStore()
        self.log = []
        self.stored = 0  # so much of the log is in the store
        self.flying = None
        self.emitted = []  # what Kafka has, and what is still in memory
        self.committed = (0, NO_TIME, 0)  # events done, stream time, rows emitted
        self.done = 0
        self.open()

    def open(self):
        while self.stored < len(self.log):
            changes = self.log[self.stored :][: self._chunk]
            self.store.write(self.restored(changes))
            self.stored += len(changes)
        self.partition = self._make(self.store, lambda *row: self.emitted.append(row))
        self.done, time, rows = self.committed
        del self.emitted[rows:]
        if hasattr(self.partition, "stream_time") and time >= 0:
            self.partition.stream_time = time

    def restored(self, changes):
        """What the store must hold for these changelog records."""
        return {self.partition.family: changes}

    def feed(self, event):
        self._apply(self.partition, event)
        self.done += 1

    def act(self, action):
        {
            "cut": self.cut,
            "land": self.land,
            "crash": self.crash,
            "crash after the commit": lambda: self.crash(kafka=True),
            "lose the disk": self.lose_disk,
        }[action]()

    def cut(self):
        if self.flying is None:
            time = getattr(self.partition, "stream_time", NO_TIME)
            self.flying = self.partition.cut(), (self.done, time, len(self.emitted))

    def land(self):
        if self.flying is not None:
            cut, self.committed = self.flying
            self.flying = None
            self.log += cut.changelog
            self.stored = len(self.log)
            self.store.write(cut.store)
            self.partition.committed()

    def commit(self):
        self.land()
        self.cut()
        self.land()

    def crash(self, *, kafka=False):
        if self.flying is not None and kafka:
            cut, self.committed = self.flying
            self.log += cut.changelog
        self.flying = None
        self.open()

    def lose_disk(self):
        self.flying = None
        self.store = MemoryStore()
        self.stored = 0
        self.open()

    def run(self, events, script):
        """Feed all events with the script's actions in between; commit at the end."""
        for action in script:
            if action != "feed":
                self.act(action)
            elif self.done < len(events):
                self.feed(events[self.done])
        while self.done < len(events):
            self.feed(events[self.done])
        self.commit()


scripts = st.lists(
    st.one_of(st.just("feed"), st.just("feed"), st.sampled_from(ACTIONS)), max_size=60
)
