"""The proxy's faults, on a server that answers each request with its own bytes."""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import IO

import pytest

from tests.faults.proxy import END_TXN, HOST, Proxy

OTHER = 3


class Server:
    """Answers frames, and keeps them."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as requests:
            try:
                while head := requests.read(4):
                    _, _, correlation = struct.unpack(">hhi", requests.read(int.from_bytes(head)))
                    self.seen.append(correlation)
                    connection.sendall(struct.pack(">ii", 4, correlation))
            except (OSError, struct.error):
                return

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()


class Client:
    """Sends frames, and waits for their answers."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection((HOST, port), timeout=5)
        self._answers: IO[bytes] = self.socket.makefile("rb")

    def send(self, api: int, correlation: int) -> None:
        self.socket.sendall(struct.pack(">ihhi", 8, api, 0, correlation))

    def answer(self) -> int | None:
        """Return the next answer's correlation id; None: the connection was broken off."""
        try:
            data = self._answers.read(8)
        except ConnectionResetError:
            return None
        return struct.unpack(">ii", data)[1] if data else None

    def ask(self, api: int, correlation: int) -> int | None:
        self.send(api, correlation)
        return self.answer()

    def close(self) -> None:
        self._answers.close()
        self.socket.close()


Connect = Callable[[], Client]


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.close()


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.port) as found:
        yield found


@pytest.fixture
def connect(proxy: Proxy) -> Iterator[Connect]:
    """Returns a new client each time it is called."""
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(contextlib.closing(Client(proxy.port)))


def test_a_door_passes_everything_on(server: Server, connect: Connect) -> None:
    """In both directions, on several connections."""
    one, other = connect(), connect()
    assert [one.ask(OTHER, 1), other.ask(OTHER, 2), one.ask(END_TXN, 3)] == [1, 2, 3]
    assert server.seen == [1, 2, 3]


def test_a_lost_request_never_arrives(server: Server, proxy: Proxy, connect: Connect) -> None:
    """Others before it and after it do."""
    proxy.lose_request(END_TXN)
    client = connect()
    assert client.ask(OTHER, 1) == 1
    assert client.ask(END_TXN, 2) is None
    assert connect().ask(END_TXN, 3) == 3
    assert server.seen == [1, 3]
    assert proxy.hits == {"request": 1}


def test_a_lost_answer_is_to_a_request_that_arrived(
    server: Server, proxy: Proxy, connect: Connect
) -> None:
    """The server has done what was asked, and the client cannot know."""
    proxy.lose_answer(END_TXN)
    assert connect().ask(END_TXN, 1) is None
    assert connect().ask(END_TXN, 2) == 2
    assert server.seen == [1, 2]


def test_a_late_request_arrives_after_the_client_has_gone(
    server: Server, proxy: Proxy, connect: Connect
) -> None:
    """And after what the client has sent since."""
    proxy.delay_request(END_TXN, 0.3)
    assert connect().ask(END_TXN, 1) is None
    assert connect().ask(END_TXN, 2) == 2
    assert server.seen == [2]
    ends = time.monotonic() + 5
    while server.seen != [2, 1]:
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_what_falls_into_a_black_hole_comes_out_when_it_ends(
    server: Server, proxy: Proxy, connect: Connect
) -> None:
    """Nothing is closed meanwhile, and connections are taken."""
    old = connect()
    assert old.ask(OTHER, 1) == 1
    proxy.black_hole()
    old.send(OTHER, 2)
    new = connect()
    new.send(OTHER, 3)
    time.sleep(0.2)
    assert server.seen == [1]
    proxy.heal()
    assert (old.answer(), new.answer()) == (2, 3)


def test_a_half_open_connection_is_silent(server: Server, proxy: Proxy, connect: Connect) -> None:
    """The client is not told; a new connection works."""
    client = connect()
    assert client.ask(OTHER, 1) == 1
    assert proxy.half_open() == 1
    client.send(OTHER, 2)
    client.socket.settimeout(0.3)
    with pytest.raises(TimeoutError):
        client.answer()
    assert connect().ask(OTHER, 3) == 3
    assert server.seen == [1, 3]


def test_a_reset_breaks_all_connections_off(proxy: Proxy, connect: Connect) -> None:
    """With RST: the client sees an error, or the end."""
    clients = [connect(), connect()]
    assert [client.ask(OTHER, 1) for client in clients] == [1, 1]
    assert proxy.reset() == 2
    assert [client.answer() for client in clients] == [None, None]


def test_a_cut_frame_is_never_whole(server: Server, proxy: Proxy, connect: Connect) -> None:
    """Half of it arrives."""
    proxy.cut_after(20)
    client = connect()
    assert client.ask(OTHER, 1) == 1
    assert client.ask(OTHER, 2) is None
    assert server.seen == [1]


def test_a_slow_door_keeps_the_order(server: Server, proxy: Proxy, connect: Connect) -> None:
    """However uneven the delay."""
    proxy.delay_s, proxy.jitter_s = 0.05, 0.05
    client = connect()
    began = time.monotonic()
    for number in range(30):
        client.send(OTHER, number)
    assert [client.answer() for _ in range(30)] == list(range(30))
    assert time.monotonic() - began > 0.05
    assert server.seen == list(range(30))
