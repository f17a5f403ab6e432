"""A bad network between a client and a server, on this machine and at the test's command."""

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from typing import Any, Self

from tests.support.daemon import unused_port

_CHUNK_BYTES = 65_536
_IN_FLIGHT = 64  # chunks held back a direction before the sender is held up
_LIMIT_S = 30.0
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class _Direction:
    """What the network does with the bytes of one direction, on every connection."""

    def __init__(self) -> None:
        self.flows = asyncio.Event()
        self.flows.set()
        self.delay_s = 0.0


class _Link:
    """One client's connection, and the one to the server that belongs to it."""

    def __init__(self, client: socket.socket) -> None:
        self.sockets = [client]
        self.task: asyncio.Task[None] | None = None

    async def run(self, port: int, requests: _Direction, replies: _Direction) -> None:
        """Carries bytes both ways until both sides have ended; a broken side breaks the other."""
        client = self.sockets[0]
        # A network that carries nothing does not carry the opening either.
        await requests.flows.wait()
        server = _tcp_socket()
        self.sockets.append(server)
        try:
            await asyncio.get_running_loop().sock_connect(server, ("127.0.0.1", port))
            async with asyncio.TaskGroup() as both:
                both.create_task(_carry(client, server, requests))
                both.create_task(_carry(server, client, replies))
        except* OSError:
            self.close(reset=True)
        else:
            self.close(reset=False)

    async def cut(self, *, reset: bool) -> None:
        """Ends the connection on both sides, from outside of its own task."""
        assert self.task is not None
        self.task.cancel()
        await asyncio.wait([self.task])
        self.close(reset=reset)

    def close(self, *, reset: bool) -> None:
        for each in self.sockets:
            if reset and each.fileno() >= 0:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            each.close()


class TcpProxy:
    """Listens on a port of the loopback and carries every connection to another.

    It runs in a thread of its own. Every method may be called from any thread, and what it
    orders is in force when it returns.

    Attributes:
        port: Where clients connect; it stays the same while connections are refused.
        accepted: How many connections were taken so far.
    """

    def __init__(self, target_port: int) -> None:
        self.port = unused_port()
        self.accepted = 0
        self._target_port = target_port
        self._loop = asyncio.SelectorEventLoop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._requests, self._replies = _Direction(), _Direction()
        self._links: set[_Link] = set()
        self._listener: socket.socket | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self.heal()
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_LIMIT_S)
        self._loop.close()

    @property
    def connections(self) -> int:
        """How many connections there are now."""
        return len(self._links)

    def heal(self) -> None:
        """Everything passes at once again, what was held back included; connections are taken."""
        self._do(self._heal())

    def stall(self, *, requests: bool = True, replies: bool = True) -> None:
        """Carries nothing any more, neither bytes nor ends; connections stay, unaware of it.

        Args:
            requests: Whether this goes for what clients send, and for new connections, which
                are taken and reach nobody.
            replies: Whether it goes for what the server sends: with these alone the server
                does as asked and the client never hears of it.
        """
        self._do(self._stall(requests=requests, replies=replies))

    def delay(self, delay_s: float) -> None:
        """Carries everything so much later, in each direction."""
        self._do(self._delay(delay_s))

    def reset(self) -> None:
        """Breaks every connection there is, on both sides, with a reset."""
        self._do(self._cut_all(reset=True))

    def refuse(self) -> None:
        """Refuses new connections; those that there are stay."""
        self._do(self._refuse())

    def _do(self, order: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(order, self._loop).result(_LIMIT_S)

    async def _heal(self) -> None:
        await self._delay(0.0)
        self._requests.flows.set()
        self._replies.flows.set()
        if self._listener is None:
            self._listener = _tcp_socket()
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind(("127.0.0.1", self.port))
            self._listener.listen(1024)
            self._loop.add_reader(self._listener, self._accept, self._listener)

    async def _stall(self, *, requests: bool, replies: bool) -> None:
        for chosen, direction in ((requests, self._requests), (replies, self._replies)):
            if chosen:
                direction.flows.clear()

    async def _delay(self, delay_s: float) -> None:
        self._requests.delay_s = self._replies.delay_s = delay_s

    async def _refuse(self) -> None:
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    async def _cut_all(self, *, reset: bool) -> None:
        links = set(self._links)
        await asyncio.gather(*(link.cut(reset=reset) for link in links))
        self._links -= links  # a link cut before its first step could not take itself out

    async def _end(self) -> None:
        await self._refuse()
        await self._cut_all(reset=False)

    def _accept(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # the client has given up meanwhile
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.accepted += 1
        link = _Link(client)
        self._links.add(link)
        link.task = self._loop.create_task(self._run(link))

    async def _run(self, link: _Link) -> None:
        try:
            await link.run(self._target_port, self._requests, self._replies)
        finally:
            self._links.discard(link)


async def _carry(source: socket.socket, sink: socket.socket, direction: _Direction) -> None:
    """Carries the bytes of one direction, and their end."""
    chunks: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_IN_FLIGHT)
    async with asyncio.TaskGroup() as both:
        both.create_task(_take(source, chunks, direction))
        both.create_task(_give(sink, chunks, direction))


async def _take(
    source: socket.socket, chunks: asyncio.Queue[tuple[float, bytes]], direction: _Direction
) -> None:
    loop = asyncio.get_running_loop()
    taken = b"first"
    while taken:
        taken = await loop.sock_recv(source, _CHUNK_BYTES)
        await chunks.put((loop.time() + direction.delay_s, taken))


async def _give(
    sink: socket.socket, chunks: asyncio.Queue[tuple[float, bytes]], direction: _Direction
) -> None:
    loop = asyncio.get_running_loop()
    while True:
        due, taken = await chunks.get()
        await asyncio.sleep(due - loop.time())
        await direction.flows.wait()
        if not taken:
            sink.shutdown(socket.SHUT_WR)
            return
        await loop.sock_sendall(sink, taken)


def _tcp_socket() -> socket.socket:
    made = socket.socket()
    made.setblocking(False)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made
