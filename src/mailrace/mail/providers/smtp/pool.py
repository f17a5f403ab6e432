"""Kept connections: at most so many, the last used first, none past its age."""

import asyncio
from collections import deque

from mailrace.clock import Clock
from mailrace.errors import MisuseError
from mailrace.mail.providers.smtp.connection import Connection
from mailrace.mail.providers.smtp.opening import open_connection, tls_context
from mailrace.mail.providers.smtp.settings import SmtpSettings
from mailrace.mail.providers.smtp.states import State

_READY = State.READY


class Pool:
    """The connections of one mailer.

    A *slot* is the right to a connection that is being opened, in use or idle; there are
    `settings.connections` of them, or as many as are wanted. Connections that take leave have
    given theirs back.
    """

    def __init__(self, settings: SmtpSettings, clock: Clock) -> None:
        """Makes an empty pool.

        Raises:
            MisuseError: The file with the authorities cannot be read.
        """
        self._settings = settings
        self._messages = settings.messages
        self._clock = clock
        self._context = tls_context(settings)
        self._slots = 0
        self._idle: list[Connection] = []
        self._alive: set[Connection] = set()
        self._queue: deque[asyncio.Future[Connection | None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._all_gone: asyncio.Future[None] | None = None
        self._closing = False
        # Deadlines are looked at this often, so a timeout is late by no more than a quarter.
        shortest_s = min(settings.timeouts.shortest_s, settings.idle_s)
        self._tick_s = min(max(shortest_s / 4, 0.005), 1.0)

    @property
    def slots(self) -> int:
        """Slots in use."""
        return self._slots

    @property
    def idle(self) -> int:
        """Connections that wait for a message."""
        return len(self._idle)

    def take(self) -> Connection | None:
        """An idle connection, the one used last, if there is one."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                connection.take_up()
                return connection
            self._free_slot()
        return None

    async def acquire(self) -> Connection:
        """An idle connection or a new one; waits while there are no slots.

        Raises:
            MisuseError: The pool is closed.
            UnavailableError: It could not be opened.
            RejectedError: The server refuses us.
        """
        self._check_open()
        connection = self.take() or await self._wait_for_slot()
        if connection is not None:
            return connection
        try:
            return await self.open()
        except BaseException:
            self._free_slot()
            raise

    async def open(self) -> Connection:
        """A new connection, for a slot that the caller has; raises as `acquire` does."""
        self._check_open()
        connection = await open_connection(self._settings, self._context, self._clock, self._forget)
        if self._closing:
            connection.abort("the mailer was closed")
            raise _closed()
        self._alive.add(connection)
        self._schedule()
        return connection

    def give_back(self, connection: Connection) -> None:
        """Takes a connection back, in whatever state, from the holder of its slot."""
        if connection.machine.state is not _READY:
            self._free_slot()
        elif self._closing or connection.sent >= self._messages:
            connection.quit()
            self._free_slot()
        else:
            connection.rest()
            waiter = self._next_in_queue() if self._queue else None
            if waiter is not None:
                connection.take_up()
                waiter.set_result(connection)
            else:
                self._idle.append(connection)

    async def close(self) -> None:
        """Says QUIT on every connection and returns once all are gone; idempotent.

        Messages under way have `quit_s` to finish, then their connections are cut.
        """
        self._closing = True
        while (waiter := self._next_in_queue()) is not None:
            waiter.set_exception(_closed())
        self._slots -= len(self._idle)
        for connection in self._idle:
            connection.quit()
        self._idle.clear()
        try:
            async with asyncio.timeout(self._settings.timeouts.quit_s):
                await self._wait_until_gone()
        except TimeoutError:
            pass
        finally:
            for connection in tuple(self._alive):
                connection.abort("the mailer was closed")
        await self._wait_until_gone()
        self._schedule()

    async def _wait_until_gone(self) -> None:
        while self._alive:
            if self._all_gone is None or self._all_gone.done():
                self._all_gone = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._all_gone)

    async def _wait_for_slot(self) -> Connection | None:
        """A connection handed over by its last holder; `None` with a slot to open one in."""
        limit = self._settings.connections
        if limit is None or self._slots < limit:
            self._slots += 1
            return None
        waiter: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._queue.append(waiter)
        try:
            connection = await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._pass_on(waiter.result())
            raise
        if connection is not None and not connection.usable:
            return None  # it died on the way here; the slot is still ours
        return connection

    def _pass_on(self, connection: Connection | None) -> None:
        if connection is not None:
            self.give_back(connection)
        else:
            self._free_slot()

    def _next_in_queue(self) -> asyncio.Future[Connection | None] | None:
        while self._queue:
            waiter = self._queue.popleft()
            if not waiter.done():
                return waiter
        return None

    def _free_slot(self) -> None:
        waiter = self._next_in_queue()
        if waiter is not None:
            waiter.set_result(None)
        else:
            self._slots -= 1

    def _forget(self, connection: Connection) -> None:
        self._alive.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
            self._free_slot()
        if not self._alive and self._all_gone is not None and not self._all_gone.done():
            self._all_gone.set_result(None)

    def _check_open(self) -> None:
        if self._closing:
            raise _closed()

    def _schedule(self) -> None:
        """Keeps the one timer going while there are connections to look at."""
        if self._alive and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._tick_s, self._tick)
        elif not self._alive and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self._timer = None
        now_s = self._clock.monotonic_s()
        for connection in [each for each in self._alive if each.due_s <= now_s]:
            if connection in self._idle:
                self._idle.remove(connection)
                self._free_slot()
            connection.expire()
        self._schedule()


def _closed() -> MisuseError:
    return MisuseError("the SMTP mailer is closed", hint="make a new one")
