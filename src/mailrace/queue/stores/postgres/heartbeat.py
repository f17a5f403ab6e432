"""The part of the store where processes enter and stay."""

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from socket import SHUT_RDWR, socket

import msgspec
import psycopg

from mailrace.queue.processes import NewProcess, ProcessRow, Vitals
from mailrace.queue.stores.postgres.database import Now, connect_blocking, statement
from mailrace.queue.stores.postgres.mapping import mapped_errors
from mailrace.queue.stores.postgres.parts import Part

_ROWS = msgspec.json.Decoder(list[ProcessRow])


class Heartbeats(Part):
    """Registration and heartbeats."""

    async def register(self, process: NewProcess, lease_s: float) -> int:
        values = msgspec.structs.asdict(process)
        values["queues"] = list(process.queues)
        process_id: int = await self.work.one(
            "process_insert", lease_ms=round(lease_s * 1000), **values
        )
        return process_id

    def renewer(self, process_id: int, lease_s: float) -> Callable[[Vitals], bool]:
        renewer = Renewer(
            self.work.dsn, self.work.place, self.work.now, process_id=process_id, lease_s=lease_s
        )
        self.on_close(renewer.close)
        return renewer

    async def processes(self) -> list[ProcessRow]:
        return _ROWS.decode(await self.work.one("process_select") or "[]")


class Renewer:
    """Prolongs the leases of a process, on a connection that is kept until it fails."""

    def __init__(self, dsn: str, place: str, now: Now, *, process_id: int, lease_s: float) -> None:
        self._dsn = dsn
        self._place = place
        self._now = now
        self._process_id = process_id
        self._lease_ms = round(lease_s * 1000)
        self._connection: psycopg.Connection | None = None
        self._lock = threading.Lock()

    def __call__(self, vitals: Vitals) -> bool:
        with self._lock, mapped_errors(self._place):
            if self._connection is None or self._connection.closed:
                self._connection = connect_blocking(self._dsn, autocommit=True)
            # Behind a pooler that lost its server no answer ever comes: nobody is to wait for one
            # once the lease is over.
            alarm = threading.Timer(self._lease_ms / 1000, _hang_up, [self._connection])
            alarm.daemon = True
            alarm.start()
            try:
                return self._renew(self._connection, vitals)
            except psycopg.Error:
                self._drop()
                raise
            finally:
                alarm.cancel()

    def close(self) -> None:
        """Gives the connection up; the next call would open another."""
        with self._lock:
            self._drop()

    def _renew(self, connection: psycopg.Connection, vitals: Vitals) -> bool:
        values = {
            "process_id": self._process_id,
            "lease_ms": self._lease_ms,
            "vitals": msgspec.json.encode(vitals).decode(),
            "now": self._now(),
        }
        return connection.execute(statement("process_renew"), values).rowcount == 1

    def _drop(self) -> None:
        if self._connection is not None:
            with suppress(psycopg.Error):
                self._connection.close()
            self._connection = None


def _hang_up(connection: psycopg.Connection) -> None:
    """Has whoever waits for an answer on a connection be told that it broke."""
    with suppress(OSError, psycopg.Error), socket(fileno=os.dup(connection.fileno())) as line:
        line.shutdown(SHUT_RDWR)
