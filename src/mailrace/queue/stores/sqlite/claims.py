"""Where workers take jobs from the SQLite store and bring them back."""

import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from mailrace.queue.flows import Flow, Want
from mailrace.queue.jobs import ClaimedJob, Finished
from mailrace.queue.processes import NewProcess, ProcessRow, Vitals
from mailrace.queue.queuerules import ALL_QUEUES
from mailrace.queue.refusals import process_unknown
from mailrace.queue.states import JobState
from mailrace.queue.stores.sqlite.base import Base
from mailrace.queue.stores.sqlite.database import connect, mapped_errors, one, run, statement
from mailrace.queue.stores.sqlite.gates import Entry, gates_of
from mailrace.queue.stores.sqlite.ledger import let_go, shift, write_finished

# Not strict: SQLite has 1 for true.
_CLAIMED = msgspec.json.Decoder(list[ClaimedJob], strict=False)


class Claims(Base):
    marks_begun = False

    async def register(self, process: NewProcess, lease_s: float) -> int:
        return await self._write(self._register, process, lease_s)

    def _register(self, process: NewProcess, lease_s: float) -> int:
        now_ms = self._now_ms()
        process_id: int = one(
            self._connection, "process_insert",
            now_ms=now_ms, expires_ms=now_ms + int(lease_s * 1000),
            journal=process.journal, node=process.node, host=process.host, pid=process.pid,
            version=process.version, supervisor=process.supervisor,
            queues=msgspec.json.encode(process.queues).decode(),
            concurrency=process.concurrency, vitals=msgspec.json.encode(Vitals()).decode(),
        )  # fmt: skip
        return process_id

    def renewer(self, process_id: int, lease_s: float) -> Callable[[Vitals], bool]:
        def renew(vitals: Vitals) -> bool:
            # A connection of its own, for a moment: the writer thread may be busy.
            self._check_there()
            connection = connect(self.path)
            try:
                with mapped_errors(self.path):
                    now_ms = self._now_ms()
                    known = run(
                        connection, "process_renew",
                        process_id=process_id, expires_ms=now_ms + int(lease_s * 1000),
                        now_ms=now_ms, vitals=msgspec.json.encode(vitals).decode(),
                    )  # fmt: skip
                    return known == 1
            finally:
                connection.close()

        return renew

    async def processes(self) -> list[ProcessRow]:
        now_ms = self._now_ms()
        return [_process(row, now_ms) for row in await self._rows("process_select")]

    async def survey(self, queues: Sequence[str], *, most: int = 256) -> list[Flow]:
        return await self._look(partial(self._survey, queues, most))

    def _survey(
        self, queues: Sequence[str], most: int, connection: sqlite3.Connection
    ) -> list[Flow]:
        now_ms = self._now_ms()
        names = list(dict.fromkeys(queues))
        if ALL_QUEUES in names:
            names = [name for (name,) in connection.execute(statement("queues_waiting")).fetchall()]
        return [
            Flow(name, tenant, priority, now_ms - run_at_ms)
            for name in names
            for tenant, priority, run_at_ms in self._flows(connection, name, most)
        ]

    def _flows(
        self, connection: sqlite3.Connection, queue: str, most: int
    ) -> list[tuple[str, int, int]]:
        """The flows of a queue, from where the last cut list ended and once round."""
        first = self._survey_from.pop(queue, "")
        flows = _flows_from(connection, queue, first, most)
        if len(flows) < most and first:
            # The flows before, and those behind once more: there is room for all of them.
            before = _flows_from(connection, queue, "", most)
            flows += [flow for flow in before if flow[0] < first][: most - len(flows)]
        if len(flows) == most and flows:
            self._survey_from[queue] = flows[-1][0] + "\0"  # the next text there can be
        return flows

    async def claim(
        self, process_id: int, wants: Sequence[Want], *, once: Sequence[str] = ()
    ) -> list[ClaimedJob]:
        return _CLAIMED.decode(await self._write(self._claim, process_id, wants, once))

    def _claim(self, process_id: int, wants: Sequence[Want], once: Sequence[str]) -> str:
        connection = self._connection
        if one(connection, "process_known", process_id=process_id) is None:
            raise process_unknown(process_id)
        run(connection, "claiming_clear")
        gated = self._choose(_merged(wants))
        sums = connection.execute(statement("claiming_sums")).fetchall()
        if not sums:
            return "[]"  # nothing written, so nothing to sync: idle processes ask often
        lease = 1 + int(one(connection, "sequence_select", name="lease"))
        run(connection, "sequence_update", name="lease", value=lease)
        for gate in (False, True) if gated else (False,):
            run(
                connection, "claim",
                lease=lease, process_id=process_id, gated=gate,
                once=msgspec.json.encode(once).decode(),
            )  # fmt: skip
        for queue, batch_id, state, jobs in sums:
            shift(connection, queue, batch_id, state, -jobs)
            shift(connection, queue, batch_id, JobState.RUNNING, jobs)
        claimed: str = one(connection, "claimed")
        return claimed

    def _choose(self, wants: Sequence[Want]) -> bool:
        """Fills `claiming`; returns whether a queue with a bound is among them."""
        now_ms = self._now_ms()
        gates = gates_of(self._connection, {want.queue for want in wants})
        entries: dict[str, Entry] = {}
        for want in wants:
            gate = gates.get(want.queue)
            if gate is None:
                run(
                    self._connection, "claiming_fill",
                    queue=want.queue, tenant=want.tenant, priority=want.priority,
                    jobs=want.jobs, gated=False, now_ms=now_ms,
                )  # fmt: skip
            elif not gate.paused:
                if want.queue not in entries:
                    entries[want.queue] = Entry(self._connection, gate)
                entries[want.queue].take(want, now_ms)
        return bool(entries)

    async def held(self, process_id: int) -> list[tuple[int, int]]:
        return [
            (job_id, lease) for job_id, lease in await self._rows("held", process_id=process_id)
        ]

    async def begin(
        self,
        process_id: int,  # noqa: ARG002 - as the port
        jobs: Sequence[tuple[int, int]],  # noqa: ARG002 - as the port
    ) -> list[int]:
        """Does nothing: the processes share a machine, and can read each other's journals."""
        return []

    async def finish(self, records: Sequence[Finished]) -> int:
        return await self._write(self._finish, records)

    def _finish(self, records: Sequence[Finished]) -> int:
        return write_finished(self._connection, records, now_ms=self._now_ms())

    async def rescue(
        self, process: ProcessRow, records: Sequence[Finished], *, known: bool
    ) -> int | None:
        held = await self._write(self._rescue, process, records, known=known)
        if held:
            self._ring()
        return held

    def _rescue(
        self, process: ProcessRow, records: Sequence[Finished], *, known: bool
    ) -> int | None:
        gone = run(
            self._connection, "process_delete",
            process_id=process.id, expires_ms=process.expires_ms,
        )  # fmt: skip
        if not gone:
            return None
        now_ms = self._now_ms()
        write_finished(self._connection, records, now_ms=now_ms)
        return let_go(self._connection, process.id, known=known, now_ms=now_ms)

    async def retire(self, process_id: int) -> bool:
        return await self._write(self._retire, process_id)

    def _retire(self, process_id: int) -> bool:
        run(self._connection, "process_retire", process_id=process_id)
        return one(self._connection, "process_known", process_id=process_id) is None


def _flows_from(
    connection: sqlite3.Connection, queue: str, first: str, most: int
) -> list[tuple[str, int, int]]:
    values = {"queue": queue, "first": first, "most": most}
    return connection.execute(statement("survey"), values).fetchall()


def _merged(wants: Sequence[Want]) -> list[Want]:
    """Each flow once: of a flow that is named twice a job would be taken twice."""
    jobs: dict[tuple[str, str, int], int] = {}
    for want in wants:
        flow = (want.queue, want.tenant, want.priority)
        jobs[flow] = jobs.get(flow, 0) + max(0, want.jobs)
    return [Want(*flow, number) for flow, number in jobs.items()]


def _process(row: tuple[Any, ...], now_ms: int) -> ProcessRow:
    (
        process_id, journal, expires_ms, started_ms, heartbeat_ms, pid, concurrency,
        node, host, version, supervisor, queues, vitals,
    ) = row  # fmt: skip
    return ProcessRow(
        id=process_id,
        journal=journal,
        expires_ms=expires_ms,
        expired=expires_ms <= now_ms,
        node=node,
        host=host,
        pid=pid,
        version=version,
        supervisor=supervisor,
        queues=tuple(msgspec.json.decode(queues, type=list[str])),
        concurrency=concurrency,
        started_ms=started_ms,
        heartbeat_ms=heartbeat_ms,
        vitals=msgspec.json.decode(vitals, type=Vitals),
    )
