"""The note by which others see a supervisor."""

import os
from importlib.metadata import version

import msgspec

from mailrace.errors import MailraceError
from mailrace.queue.staffing import StaffingSettings
from mailrace.queue.store import Fleet
from mailrace.queue.supervisors import NOTES, SupervisorRow, read_supervisors


class Presence:
    """Keeps the note of one supervisor, from its first heartbeat until it takes its leave."""

    def __init__(self, store: Fleet, name: str, host: str, queues: tuple[str, ...]) -> None:
        self._store = store
        self._name = name
        self._host = host
        self._queues = queues
        self._version = version("mailrace")
        self._started_ms = 0

    async def tell(
        self, *, processes: int, pids: tuple[int, ...], state: str, bounds: StaffingSettings
    ) -> None:
        """One heartbeat, with what there is to know."""
        now_ms = await self._store.now_ms()
        self._started_ms = self._started_ms or now_ms
        row = SupervisorRow(
            name=self._name,
            host=self._host,
            pid=os.getpid(),
            version=self._version,
            queues=self._queues,
            processes=processes,
            processes_min=bounds.processes_min,
            processes_max=bounds.processes_max,
            pids=pids,
            state=state,
            started_ms=self._started_ms,
            heartbeat_ms=now_ms,
        )
        await self._store.note(NOTES + self._name, msgspec.json.encode(row))
        await self._forget_predecessors(row)

    async def leave(self) -> MailraceError | None:
        """Lets others know that it was stopped, and is not merely silent; returns why it cannot."""
        try:
            await self._store.note(NOTES + self._name, None)
        except MailraceError as error:
            return error
        return None

    async def _forget_predecessors(self, own: SupervisorRow) -> None:
        """Takes the place of those that were killed here before this one was started."""
        for row in read_supervisors(await self._store.notes(NOTES)):
            is_alike = (row.host, row.queues) == (own.host, own.queues)
            is_before = row.heartbeat_ms <= own.started_ms and row.is_gone(own.heartbeat_ms)
            if is_alike and is_before:
                await self._store.note(NOTES + row.name, None)
