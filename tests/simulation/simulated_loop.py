"""An event loop without a clock, sockets or threads, on which a seed decides who goes first.

What is ready runs in an order that the seed shuffles; when nothing is ready, time jumps to the next
timer. The same seed gives the same run, and an hour of waiting takes no time. When nothing is ready
and nothing is due, everybody waits for ever: that is a :class:`Deadlock` here, not a hang.

Code belongs to a :class:`Process`, which it inherits through a context variable with every task
and callback. A process can be frozen (its code waits, as after SIGSTOP or in a slow disk's write)
and killed: not cancelled, as no ``finally`` runs after ``kill -9``, but never run again.

Nothing may depend on addresses either: a task's hash is a number in the order of creation, as sets
of tasks are gone through in the order of their hashes. (Strings are ``PYTHONHASHSEED``'s matter.)

It overrides ``_run_once``, which is private to asyncio; ``test_simulated_loop.py`` holds it to it.
"""

import asyncio
from contextvars import Context, ContextVar, copy_context
from heapq import heappop, heappush
from random import Random

HANDLE_S = 20e-6
"""What running one callback costs, so that a loop that never waits cannot stop time."""


class Deadlock(Exception):
    """Nothing is ready, nothing is due, and somebody still waits."""


class Killed(BaseException):
    """Ends the synchronous code in which a process was killed."""


class Process:
    """Code that lives, freezes and dies together.

    Attributes:
        kill_in, freeze_in: counts down with each callback; at 0 it happens. Negative: never.
    """

    def __init__(self, name):
        self.name = name
        self.alive = True
        self.frozen = False
        self.kill_in = -1
        self.freeze_in = -1
        self.freeze_for = 0.0
        self.held = []  # callbacks that wait for it to go on, or for the end of the simulation
        self.tasks = []
        self.on_kill = []
        self.leave = None  # asks it to end in good order

    def __repr__(self):
        return self.name

    def kill(self):
        """End as by ``kill -9``."""
        if self.alive:
            self.alive = False
            for call in self.on_kill:
                call()


PROCESS: ContextVar[Process | None] = ContextVar("simulated_process", default=None)


class SimulatedLoop(asyncio.BaseEventLoop):
    """See the module."""

    def __init__(self, seed):
        super().__init__()
        self.random = Random(f"loop {seed}")
        self.outside = Context()  # for callbacks that belong to no process
        self.errors = []
        self.turns = 0
        self._now = 0.0
        self._timers = []  # (when, number, handle): compared without asking the handles
        self._number = 0
        self._burying = False
        self.set_exception_handler(lambda _, context: self.errors.append(context))
        self.set_task_factory(_make_task)

    def time(self):
        """Return the virtual time, in seconds."""
        return self._now

    def later(self, delay_s, call, *args):
        """Call outside of every process."""
        return self.call_later(delay_s, call, *args, context=self.outside)

    def spawn(self, process, coroutine, name):
        """Start a process with a coroutine."""
        context = copy_context()
        context.run(PROCESS.set, process)
        return context.run(self.create_task, coroutine, name=name)

    def freeze(self, process, for_s):
        """Let a process stand still for a while."""
        if process.alive and not process.frozen:
            process.frozen = True
            self.later(for_s, self.thaw, process)

    def thaw(self, process):
        """Let a process go on."""
        process.frozen = False
        if process.alive:
            self._ready.extend(process.held)
            process.held.clear()

    def call_at(self, when, callback, *args, context=None):
        """Call at a time; timers of the same time in the order in which they were set."""
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._number += 1
        heappush(self._timers, (when, self._number, handle))
        return handle

    def _run_once(self):
        timers, ready = self._timers, self._ready
        while timers and timers[0][2]._cancelled:
            heappop(timers)
        if not ready:
            if not timers:
                raise Deadlock(self.waiting())
            self._now = max(self._now, timers[0][0])
        while timers and timers[0][0] <= self._now:
            handle = heappop(timers)[2]
            if not handle._cancelled:
                ready.append(handle)
        batch = list(ready)
        ready.clear()
        if len(batch) > 1:
            self.random.shuffle(batch)
        self.turns += len(batch)
        for handle in batch:
            if not handle._cancelled and self._may_run(handle):
                self._now += HANDLE_S
                handle._run()

    def _may_run(self, handle):
        process = handle._context.get(PROCESS)
        if process is None or self._burying:
            return True
        if process.alive and not process.frozen:
            if process.kill_in == 0:
                process.kill()
            process.kill_in -= 1
            if process.freeze_in == 0:
                self.freeze(process, process.freeze_for)
            process.freeze_in -= 1
        if process.frozen or not process.alive:
            process.held.append(handle)
            return False
        return True

    def waiting(self):
        """Say who waits, and where."""
        lines = [
            f"{task.get_name()} in {place_of(task)}"
            for task in asyncio.all_tasks(self)
            if task.process is None or task.process.alive
        ]
        return "all wait for ever: " + "; ".join(sorted(lines))

    def bury(self, processes, limit=500):
        """End whatever is left, so that nothing is collected in the middle of its work.

        The edges of the processes must be dead: what runs now must have no effect.
        """
        self._burying = True
        for process in processes:
            self._ready.extend(process.held)
            process.held.clear()
        while limit and (tasks := asyncio.all_tasks(self)):
            limit -= 1
            for task in tasks:
                task.cancel()
            for _ in range(5):
                self.call_soon(lambda: None)
                self._run_once()

    def _write_to_self(self):
        """No thread wakes this loop."""

    def _process_events(self, events):
        """There are no sockets."""


def place_of(task):
    """Return the functions that a task is in, the innermost last."""
    names, waits = [], task.get_coro()
    while waits is not None and len(names) < 10:
        code = getattr(waits, "cr_code", None) or getattr(waits, "ag_code", None)
        if code is not None:
            names.append(code.co_qualname)
        waits = getattr(waits, "cr_await", None) or getattr(waits, "ag_await", None)
    return " > ".join(names[-4:])


class SimulatedTask(asyncio.Task):
    """A task with a place in the order of things."""

    def __init__(self, coroutine, *, loop, context):
        self.process = PROCESS.get() if context is None else context.get(PROCESS)
        loop._number += 1
        self._hash = loop._number
        super().__init__(coroutine, loop=loop, context=context)

    def __hash__(self):
        return self._hash


def _make_task(loop, coroutine, context=None):
    task = SimulatedTask(coroutine, loop=loop, context=context)
    if task.process is not None:
        task.process.tasks.append(task)
    return task
