"""Work for other processes: what ``map_cpu`` calls, and the processes that it is done by.

They are fresh Pythons (spawned: a fork would copy an event loop that is at work), start with the
first event, and belong to this process: each of them holds the other end of a pipe, so they end
with the app, and also when it is killed. Events go there in chunks of about 20 ms of work.

A process that does not survive an event takes the pool with it. The chunks that were under way are
then worked on again one event after the other, with nothing else in the pool, so the one that ends
its process a second time is to blame, and no other.

Pickle is what concurrent.futures speaks; the bytes come from our own processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import math
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing.reduction import ForkingPickler
from typing import TYPE_CHECKING, Any

from engine.clock import SystemClock
from engine.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from engine.ahead import Outcome

log = logging.getLogger(__name__)

WORKERS_MAX = 256
CHUNK_MS = 20.0
"""How long a process works on a chunk, about: the hand-over costs some 0.2 ms."""
CHUNK_MAX = 500
AHEAD = 2
"""So many chunks a process lie ready."""
DEATHS_MAX = 2
"""So often an event ends its process, alone in the pool, before it is to blame."""
PAUSE_S = 1.0
CLOSE_S = 5.0


class ProcessDied(RuntimeError):
    """A process did not survive an event: it was killed, had no memory, or crashed."""


class CpuCalls:
    """Chunks of events for a function in another process.

    Raises:
        ConfigError: other processes cannot find it, or ``workers`` is out of its bounds.
    """

    def __init__(self, fn: Callable[[Any], Any], workers: int | None) -> None:
        _check_importable(fn)
        self._workers = workers or len(os.sched_getaffinity(0))
        if not 1 <= self._workers <= WORKERS_MAX:
            raise ConfigError(f"map_cpu(workers={workers}): 1 to {WORKERS_MAX} processes")
        self.most = AHEAD * self._workers
        self._fn = fn

    def size(self, left: int) -> int:
        """Return a chunk's size: by what an event costs, and such that every process has some."""
        cost_ms = _pool(self._workers).cost_ms.get(self._fn)
        by_cost = 1 if cost_ms is None else int(CHUNK_MS / max(cost_ms, CHUNK_MS / CHUNK_MAX))
        return max(1, min(by_cost, math.ceil(left / self._workers)))

    def start(self, values: list[Any]) -> asyncio.Future[Outcome]:
        """Send a chunk on its way."""
        work = _pool(self._workers).call(self._fn, values)
        return asyncio.get_running_loop().create_task(work, name="map_cpu")


class Pool:
    """Processes, made anew where they die.

    Attributes:
        cost_ms: what an event costs, by function.
    """

    def __init__(self, workers: int) -> None:
        self.cost_ms: dict[Any, float] = {}
        self._workers = workers
        self._executor: ProcessPoolExecutor | None = None
        self._lifeline: Connection | None = None
        self._alone = asyncio.Lock()

    async def call(self, fn: Callable[[Any], Any], values: list[Any]) -> Outcome:
        """Return what ``fn`` makes of the values, up to the first on which it raises."""
        async with self._alone:
            pass  # nobody looks for an event that ends processes
        try:
            return await self._submit(fn, values)
        except BrokenProcessPool:
            log.warning("a process of map_cpu(%s) ended; its events are done again, one by one",
                        fn_name(fn))  # fmt: skip
        except Exception:
            if len(values) == 1:
                raise
        return await self._one_by_one(fn, values)

    async def _one_by_one(self, fn: Callable[[Any], Any], values: list[Any]) -> Outcome:
        results: list[Any] = []
        async with self._alone:
            for value in values:
                try:
                    result, error = await self._only(fn, value)
                except Exception as unfit:  # noqa: BLE001  the event's: it cannot be pickled
                    result, error = [], unfit
                results += result
                if error is not None:
                    return results, error
        return results, None

    async def _only(self, fn: Callable[[Any], Any], value: Any) -> Outcome:
        """Work on one event with nothing else in the pool."""
        deaths = 0
        while deaths < DEATHS_MAX:
            with contextlib.suppress(BrokenProcessPool):
                return await self._submit(fn, [value])
            if await self._works(fn):
                deaths += 1
            else:
                log.error("the processes of map_cpu(%s) end before they have an event (see "
                          "stderr); trying again", fn_name(fn))  # fmt: skip
                await asyncio.sleep(PAUSE_S)
        return [], ProcessDied(
            f"the process that ran {fn_name(fn)} ended: it was killed (by the system, for want of "
            "memory?) or crashed in native code"
        )

    async def _works(self, fn: Callable[[Any], Any]) -> bool:
        """Say whether a process can import the function."""
        try:
            await self._submit(fn, [])
        except BrokenProcessPool:
            return False
        return True

    async def _submit(self, fn: Callable[[Any], Any], values: list[Any]) -> Outcome:
        executor = self._executor or self._open()
        try:
            results, error, took_ms = await asyncio.wrap_future(executor.submit(_work, fn, values))
        except BrokenProcessPool:
            if executor is self._executor:
                self._abandon()
            raise
        if results:
            cost_ms = took_ms / len(results)
            known = self.cost_ms.get(fn, cost_ms)
            self.cost_ms[fn] = known + (cost_ms - known) / 4
        return results, error

    def _open(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        ours, self._lifeline = context.Pipe(duplex=False)
        self._executor = ProcessPoolExecutor(
            self._workers, context, initializer=_begin, initargs=(ours,)
        )
        return self._executor

    def _abandon(self) -> None:
        """End the processes of a pool that has lost one."""
        executor = self._end()
        if executor is not None:
            executor.shutdown(wait=False, cancel_futures=True)

    def _end(self) -> ProcessPoolExecutor | None:
        """End the processes, whatever they do."""
        executor, self._executor = self._executor, None
        if self._lifeline is not None:
            self._lifeline.close()
        return executor

    async def close(self) -> None:
        """End the processes and wait until they are gone."""
        executor = self._end()
        if executor is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await asyncio.to_thread(executor.shutdown, cancel_futures=True)


_pools: dict[int, Pool] = {}
"""By number of processes: they are this process's, like its CPUs."""


def _pool(workers: int) -> Pool:
    pool = _pools.get(workers)
    if pool is None:
        pool = _pools[workers] = Pool(workers)
    return pool


async def close() -> None:
    """End all processes of all pools."""
    while _pools:
        _, pool = _pools.popitem()
        await pool.close()


# -- in the other process ----------------------------------------------------------------------


def _begin(lifeline: Connection) -> None:
    """End with the process that we work for; leave Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(lifeline,), name="lifeline", daemon=True).start()


def _end_with(lifeline: Connection) -> None:
    with contextlib.suppress(OSError):
        lifeline.poll(None)  # nothing is ever sent: it returns when the other end is closed
    os._exit(0)


def _work(
    fn: Callable[[Any], Any], values: list[Any]
) -> tuple[list[Any], BaseException | None, float]:
    """Return the results up to the first error, the error, and the time it took (ms)."""
    clock = SystemClock()
    began = clock.elapsed_ms()
    results: list[Any] = []
    error: BaseException | None = None
    for value in values:
        try:
            results.append(fn(value))
        except (Exception, SystemExit) as raised:  # noqa: BLE001  it is the event's
            error = _portable(raised)
            break
    return results, error, clock.elapsed_ms() - began


def _portable(error: BaseException) -> BaseException:
    """Return an exception as it can be sent, with a note of where it was raised."""
    where = "".join(traceback.format_tb(error.__traceback__)[1:])
    error.add_note(f"raised in a process of map_cpu:\n{where}")
    if not isinstance(error, Exception):  # SystemExit would end the worker
        return RuntimeError(f"{type(error).__name__}: {error}")
    try:
        ForkingPickler.loads(ForkingPickler.dumps(error))
    except Exception:  # noqa: BLE001  its class has its own idea of its arguments
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


# -- functions that other processes can find ---------------------------------------------------


def _check_importable(fn: Any) -> None:
    """Refuse what a process that imports its module would not find there."""
    while isinstance(fn, partial):
        fn = fn.func
    if inspect.iscoroutinefunction(fn):
        raise ConfigError(f"map_cpu({fn_name(fn)}): it is a coroutine function: use map_async")
    module, name = getattr(fn, "__module__", None), getattr(fn, "__qualname__", "")
    found: Any = sys.modules.get(module or "")
    for part in name.split("."):
        found = getattr(found, part, None)
    if not callable(fn) or found is not fn:
        raise ConfigError(
            f"map_cpu({fn_name(fn)}): another process finds a function by its module and name, so "
            "it cannot be a lambda, a closure, a method of an object or a decorated function: "
            "define it with def at the top of a module, and bind what else it needs with "
            "functools.partial"
        )


def fn_name(fn: Any) -> str:
    """Return a function's name, for messages."""
    while isinstance(fn, partial):
        fn = fn.func
    return getattr(fn, "__qualname__", None) or repr(fn)
