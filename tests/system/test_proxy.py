"""The bad network that tests are run over does what it is told, at once."""

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import psycopg
import pytest

from tests.support.postgres import with_port
from tests.support.proxy import TcpProxy

LIMIT_S = 30.0
Dial = Callable[[], socket.socket]
Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    """Closes what a test opens."""
    with ExitStack() as opened:
        yield opened


@pytest.fixture
def listener(opened: ExitStack) -> socket.socket:
    """The server behind the proxy."""
    listener = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
    listener.settimeout(LIMIT_S)
    return listener


@pytest.fixture
def proxy(listener: socket.socket) -> Iterator[TcpProxy]:
    with TcpProxy(listener.getsockname()[1]) as proxy:
        yield proxy


@pytest.fixture
def dial(proxy: TcpProxy, opened: ExitStack) -> Dial:
    return lambda: opened.enter_context(
        socket.create_connection(("127.0.0.1", proxy.port), timeout=LIMIT_S)
    )


@pytest.fixture
def pair(dial: Dial, listener: socket.socket, opened: ExitStack) -> Pair:
    """A connection's two ends: the client's and the server's."""
    return dial(), take(listener, opened)


def take(listener: socket.socket, opened: ExitStack) -> socket.socket:
    server, _ = listener.accept()
    server.settimeout(LIMIT_S)
    return opened.enter_context(server)


def read(end: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size and (more := end.recv(size - len(received))):
        received += more
    return bytes(received)


def is_silent(*ends: socket.socket) -> bool:
    """Whether nothing comes, neither bytes nor an end; what passes takes far less than this."""
    return select.select(ends, [], [], 0.1) == ([], [], [])


def test_bytes_pass_both_ways_unchanged(pair: Pair) -> None:
    client, server = pair
    sent = bytes(range(256)) * 8000  # more than any buffer on the way holds
    for source, sink in ((client, server), (server, client)):
        sender = threading.Thread(target=source.sendall, args=[sent])
        sender.start()
        assert read(sink, len(sent)) == sent
        sender.join(LIMIT_S)


def test_an_end_passes_and_the_other_direction_stays(pair: Pair) -> None:
    client, server = pair
    client.sendall(b"last words")
    client.shutdown(socket.SHUT_WR)
    assert read(server, 100) == b"last words"
    server.sendall(b"answer")
    assert read(client, 6) == b"answer"


def test_a_connection_that_both_ended_is_gone(pair: Pair, proxy: TcpProxy) -> None:
    assert (proxy.accepted, proxy.connections) == (1, 1)
    for end in pair:
        end.shutdown(socket.SHUT_WR)
    assert [end.recv(1) for end in pair] == [b"", b""]
    wait_for(lambda: proxy.connections == 0)
    assert proxy.accepted == 1


def test_a_stalled_network_carries_nothing_and_ends_nothing(pair: Pair, proxy: TcpProxy) -> None:
    client, server = pair
    proxy.stall()
    client.sendall(b"anybody?")
    server.sendall(b"hello?")
    server.shutdown(socket.SHUT_WR)
    assert is_silent(client, server)
    proxy.heal()
    assert read(server, 8) == b"anybody?"
    assert read(client, 100) == b"hello?"


def test_a_connection_made_in_a_stall_reaches_nobody_until_it_is_over(
    dial: Dial, proxy: TcpProxy, listener: socket.socket, opened: ExitStack
) -> None:
    proxy.stall()
    client = dial()
    client.sendall(b"early")
    assert is_silent(listener, client)
    proxy.heal()
    assert read(take(listener, opened), 5) == b"early"


def test_replies_alone_can_be_stalled(pair: Pair, proxy: TcpProxy) -> None:
    client, server = pair
    proxy.stall(requests=False)
    client.sendall(b"commit")
    assert read(server, 6) == b"commit"
    server.sendall(b"done")
    assert is_silent(client)
    proxy.reset()
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def test_requests_alone_can_be_stalled(pair: Pair, proxy: TcpProxy) -> None:
    client, server = pair
    proxy.stall(replies=False)
    server.sendall(b"notice")
    assert read(client, 6) == b"notice"
    client.sendall(b"commit")
    assert is_silent(server)


@pytest.mark.parametrize("stalled", [False, True])
def test_a_reset_breaks_both_sides_of_every_connection(
    pair: Pair, dial: Dial, proxy: TcpProxy, listener: socket.socket, opened: ExitStack, *,
    stalled: bool,
) -> None:  # fmt: skip
    ends = (*pair, dial(), take(listener, opened))
    if stalled:
        proxy.stall()
    proxy.reset()
    assert proxy.connections == 0
    for end in ends:
        with pytest.raises(ConnectionResetError):
            end.recv(1)


def test_connections_are_taken_after_a_reset(
    pair: Pair, dial: Dial, proxy: TcpProxy, listener: socket.socket, opened: ExitStack
) -> None:
    proxy.reset()
    client = dial()
    client.sendall(b"again")
    assert read(take(listener, opened), 5) == b"again"


def test_new_connections_are_refused_and_those_that_are_stay(
    pair: Pair, dial: Dial, proxy: TcpProxy
) -> None:
    client, server = pair
    proxy.refuse()
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        dial()
    client.sendall(b"still")
    assert read(server, 5) == b"still"
    proxy.heal()
    dial().close()


def test_a_server_that_is_down_is_a_reset(
    dial: Dial, proxy: TcpProxy, listener: socket.socket
) -> None:
    listener.close()
    with pytest.raises(ConnectionResetError):
        dial().recv(1)


def test_a_server_that_breaks_off_breaks_the_client(pair: Pair) -> None:
    client, server = pair
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    server.close()
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def test_a_delay_is_added_in_each_direction_and_keeps_the_order(
    pair: Pair, proxy: TcpProxy
) -> None:
    client, server = pair
    proxy.delay(0.05)
    began = time.monotonic()
    client.sendall(b"one ")
    client.sendall(b"two")
    assert read(server, 7) == b"one two"
    server.sendall(b"three")
    assert read(client, 5) == b"three"
    assert time.monotonic() - began >= 0.1


def test_a_delay_does_not_narrow_the_line(pair: Pair, proxy: TcpProxy) -> None:
    client, server = pair
    proxy.delay(1.0)
    began = time.monotonic()
    size = 1_000_000  # more than sixteen chunks: sixteen delays if each had to wait for the last
    sender = threading.Thread(target=client.sendall, args=[bytes(size)])
    sender.start()
    assert len(read(server, size)) == size
    sender.join(LIMIT_S)
    assert 1.0 <= time.monotonic() - began < 8.0


def test_it_can_be_commanded_from_any_thread(pair: Pair, proxy: TcpProxy) -> None:
    client, server = pair
    commands = [proxy.stall, proxy.heal, proxy.refuse, proxy.heal] * 20
    threads = [threading.Thread(target=command) for command in commands]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    proxy.heal()
    client.sendall(b"after")
    assert read(server, 5) == b"after"


def test_nothing_is_left_when_it_is_closed(listener: socket.socket, opened: ExitStack) -> None:
    with TcpProxy(listener.getsockname()[1]) as proxy:
        client = opened.enter_context(
            socket.create_connection(("127.0.0.1", proxy.port), timeout=LIMIT_S)
        )
        server = take(listener, opened)
        proxy.stall()
    assert [client.recv(1), server.recv(1)] == [b"", b""]
    assert not [thread for thread in threading.enumerate() if thread.name == "proxy"]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", proxy.port))


def test_postgresql_behind_it_is_lost_and_found(postgres_dsn: str) -> None:
    port = int(psycopg.conninfo.conninfo_to_dict(postgres_dsn)["port"] or 5432)
    with TcpProxy(port) as proxy:
        dsn = with_port(postgres_dsn, proxy.port)
        with psycopg.connect(dsn) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
            proxy.reset()
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")
        with psycopg.connect(dsn) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


def wait_for(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.001)
    assert is_so()
