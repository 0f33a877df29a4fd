"""A door to a broker, as bad as a test wants it: one TCP proxy, in a thread of its own.

It passes Kafka's frames on whole (four bytes of size, then the frame), so that it can lose just the
one request, or just the one answer, that a test is about. Kafka's request header is API key
(int16), version (int16), correlation id (int32); an answer begins with the correlation id.
"""

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

HOST = "127.0.0.1"
END_TXN = 26
_NOW = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST


class Link:
    """One client's connection and the one to the broker that belongs to it."""

    def __init__(self, client: asyncio.StreamWriter, broker: asyncio.StreamWriter) -> None:
        self.client = client
        self.broker = broker
        self.doomed: set[int] = set()
        """Correlation ids of requests whose answers are to be lost."""
        self.deaf = False
        """The broker's side is gone and the client is not told."""

    def reset(self) -> None:
        """Break both sides off with RST."""
        for writer in (self.client, self.broker):
            abort(writer)


def abort(writer: asyncio.StreamWriter) -> None:
    """Close a connection with RST, whatever was still to be sent."""
    if not writer.transport.is_closing():
        sock = writer.get_extra_info("socket")
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NOW)
        writer.transport.abort()


class Proxy:
    """Listens on a port of its own and passes everything on to ``target``.

    The faults are attributes and methods; a test may use them from its own thread.

    Attributes:
        port: where it listens.
        delay_s, jitter_s: each frame takes this long, more or less by so much; the order is kept.
        bytes_per_s: at most so much goes through in each direction of a connection; 0: no limit.
        hits: how often each of the faults that wait for their moment has struck.
    """

    def __init__(self, target: int, seed: int = 0) -> None:
        self.delay_s = 0.0
        self.jitter_s = 0.0
        self.bytes_per_s = 0.0
        self.hits: Counter[str] = Counter()
        self._target = target
        self._random = random.Random(seed)
        self._armed: dict[tuple[str, int], list[float]] = {}
        self._cut_after = -1
        self._links: set[Link] = set()
        self._loop = asyncio.new_event_loop()
        self._flow = asyncio.Event()
        self._flow.set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._serve, HOST, 0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _close(self) -> None:
        self._server.close()
        for link in list(self._links):
            link.reset()
        own = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not own]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _soon(self, call: Callable[[], None]) -> None:
        async def run() -> None:
            call()

        self._run(run())

    # -- the faults --------------------------------------------------------------------------

    def black_hole(self) -> None:
        """Let nothing through, and close nothing; what is sent meanwhile arrives after it."""
        self._soon(self._flow.clear)

    def heal(self) -> None:
        """End a black hole, delays and limits, and disarm what has not struck."""
        self.delay_s = self.jitter_s = self.bytes_per_s = 0.0
        self._armed.clear()
        self._cut_after = -1
        self._soon(self._flow.set)

    def reset(self) -> int:
        """Break all connections off with RST; return how many there were."""
        count = len(self._links)
        self._soon(lambda: [link.reset() for link in list(self._links)] and None)
        return count

    def half_open(self) -> int:
        """Close the broker's side of all connections and tell the clients nothing."""
        count = len(self._links)

        def strike() -> None:
            for link in self._links:
                link.deaf = True
                abort(link.broker)

        self._soon(strike)
        return count

    def cut_after(self, count: int) -> None:
        """Break the next connection off that has sent so many bytes from now, within a frame."""
        self._cut_after = count

    def lose_request(self, api: int, times: int = 1) -> None:
        """Break the connection off just before the next requests of this kind go on."""
        self._armed["request", api] = [0.0] * times

    def lose_answer(self, api: int, times: int = 1) -> None:
        """Let the next requests of this kind through, and break off before their answers."""
        self._armed["answer", api] = [0.0] * times

    def delay_request(self, api: int, delay_s: float) -> None:
        """Break the client off at the next such request, and let it reach the broker later."""
        self._armed["late", api] = [delay_s]

    def _strikes(self, what: str, api: int) -> float | None:
        waiting = self._armed.get((what, api))
        if not waiting:
            return None
        self.hits[what] += 1
        return waiting.pop()

    # -- the way through ---------------------------------------------------------------------

    async def _serve(self, client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        link = None
        try:
            await self._flow.wait()
            broker, forth = await asyncio.open_connection(HOST, self._target)
            link = Link(back, forth)
            self._links.add(link)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(link, client, forth, self._ask))
                group.create_task(self._pass(link, broker, back, self._answer))
        except* (OSError, EOFError, asyncio.CancelledError):
            pass
        finally:
            if link is None:
                abort(back)
            else:
                link.reset()
                self._links.discard(link)

    async def _pass(
        self,
        link: Link,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        judge: Callable[[Link, bytes], Coroutine[Any, Any, bool]],
    ) -> None:
        """Pass frames on, each when it is due; ends when either side does."""
        due, waiting = 0.0, Counter[str]()

        def write(data: bytes) -> None:
            waiting["frames"] -= 1
            sink.write(data)

        while True:
            data = await self._frame(link, source)
            await self._flow.wait()
            if self.bytes_per_s:
                await asyncio.sleep(len(data) / self.bytes_per_s)
            if not await judge(link, data):
                continue
            now = self._loop.time()
            wait_s = self.delay_s + self.jitter_s * self._random.uniform(-1, 1)
            due = max(due + 1e-6, now + max(0.0, wait_s))  # never two at the same time
            if wait_s or waiting["frames"]:
                waiting["frames"] += 1
                self._loop.call_at(due, write, data)
            else:
                sink.write(data)
                await sink.drain()

    async def _frame(self, link: Link, source: asyncio.StreamReader) -> bytes:
        try:
            head = await source.readexactly(4)
            return head + await source.readexactly(int.from_bytes(head))
        except (OSError, EOFError):
            if not link.deaf:
                raise
            await self._loop.create_future()  # for as long as the client stays
            raise

    async def _ask(self, link: Link, data: bytes) -> bool:
        """Say whether a request goes on to the broker."""
        api, _, correlation = struct.unpack_from(">hhi", data, 4)
        if link.deaf:
            return False
        if self._cut_after >= 0:
            self._cut_after -= len(data)
            if self._cut_after < 0:
                self.hits["cut"] += 1
                link.broker.write(data[: len(data) // 2])
                await link.broker.drain()
                await asyncio.sleep(0.05)
                link.reset()
                return False
        if self._strikes("request", api) is not None:
            link.reset()
            return False
        if self._strikes("answer", api) is not None:
            link.doomed.add(correlation)
        late_s = self._strikes("late", api)
        if late_s is not None:
            link.deaf = True
            abort(link.client)
            await asyncio.sleep(late_s)
            link.broker.write(data)
            await link.broker.drain()
            await asyncio.sleep(1.0)  # an RST would take it back
            return False
        return True

    async def _answer(self, link: Link, data: bytes) -> bool:
        """Say whether an answer goes back to the client."""
        if int.from_bytes(data[4:8]) in link.doomed:
            link.reset()
        return not (link.deaf or link.doomed)
