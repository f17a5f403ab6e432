"""The part of the store where workers take jobs and bring them back."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec
from psycopg.errors import CheckViolation

from mailrace.clock import Clock
from mailrace.errors import MailraceError, UnavailableError
from mailrace.queue.flows import Flow, Want
from mailrace.queue.jobs import DEATHS_MAX, ClaimedJob, Finished
from mailrace.queue.processes import ProcessRow
from mailrace.queue.queuerules import ALL_QUEUES
from mailrace.queue.refusals import process_unknown
from mailrace.queue.states import Step
from mailrace.queue.stores.postgres.database import Database, Statements
from mailrace.queue.stores.postgres.parts import Part
from mailrace.queue.stores.postgres.positions import Positions, unfilled
from mailrace.queue.stores.postgres.records import (
    completed_json,
    firsts,
    records_json,
    rest_of,
    unreadable,
)
from mailrace.queue.stores.postgres.surveys import LastSurvey, cut

_JOBS = msgspec.json.Decoder(list[ClaimedJob])
_JOB = msgspec.json.Decoder(ClaimedJob)
# Where the text as a whole cannot be read: the lease, which all jobs of a claim have in common.
_HEAD = re.compile(r"\[\s*\[\s*\d+,\s*(\d+),")
_REACHED = msgspec.json.Decoder(list[tuple[int, int, int]])
_FLOWS = msgspec.json.Decoder(list[Flow])
_Reached = list[tuple[int, int, int]]


class Claims(Part):
    """Claims, finishes, and what becomes of the jobs of a process that ended."""

    marks_begun = True

    def __init__(self, work: Database, desk: Database, clock: Clock) -> None:
        super().__init__(work, desk, clock)
        self._positions = Positions()
        self._gated: frozenset[str] = frozenset()
        self._survey = LastSurvey()
        self._behind: dict[str, str] = {}

    async def survey(self, queues: Sequence[str], *, most: int = 256) -> list[Flow]:
        began_s = self.clock.monotonic_s()
        asked = (tuple(queues), most)
        known = self._survey.again(asked, began_s)
        if known is not None:
            return known
        flows = await self._look(await self._queues(queues), most)
        now_s = self.clock.monotonic_s()
        self._survey.made(asked, flows, now_s=now_s, cost_s=now_s - began_s)
        return flows

    async def _queues(self, queues: Sequence[str]) -> list[str]:
        if ALL_QUEUES not in queues:
            return list(dict.fromkeys(queues))
        return [name for (name,) in await self.work.rows("queues_waiting")]

    async def _look(self, queues: list[str], most: int) -> list[Flow]:
        after = [self._behind.get(queue) for queue in queues]
        found = await self.work.one("survey", queues=queues, after=after, most=most)
        by_queue: dict[str, list[Flow]] = {queue: [] for queue in queues}
        for flow in _FLOWS.decode(found or "[]"):
            by_queue[flow.queue].append(flow)
        shown: list[Flow] = []
        for queue, flows in by_queue.items():
            some, behind = cut(flows, most)
            shown += some
            if behind is None:
                self._behind.pop(queue, None)
            else:
                self._behind[queue] = behind
        return shown

    async def claim(
        self, process_id: int, wants: Sequence[Want], *, once: Sequence[str] = ()
    ) -> list[ClaimedJob]:
        free = [want for want in wants if want.queue not in self._gated]
        jobs = await self._claim_free(process_id, free, once) if free else []
        gated = [want for want in wants if want.queue in self._gated]
        if gated:
            with _worth_having(jobs):
                jobs += await self._claim_gated(process_id, gated, once)
        return jobs

    async def _claim_free(
        self, process_id: int, wants: Sequence[Want], once: Sequence[str]
    ) -> list[ClaimedJob]:
        full = self._positions.full(self.clock.monotonic_s())
        jobs, reached = await self._take(process_id, wants, once, full=full)
        left = unfilled(wants, reached) if not full else []
        if left and self._positions.full_after_short(self.clock.monotonic_s()):
            with _worth_having(jobs):
                more, _ = await self._take(process_id, left, once, full=True)
                jobs += more
        return jobs

    async def _take(
        self, process_id: int, wants: Sequence[Want], once: Sequence[str], *, full: bool
    ) -> tuple[list[ClaimedJob], _Reached]:
        began_s = self.clock.monotonic_s()
        rows = await self.work.rows(
            "claim",
            process_id=process_id,
            since_ms=[None if full else self._positions.since_ms(want) for want in wants],
            **_columns(wants, once),
        )
        known, found, far, gated = rows[0]
        if not known:
            raise process_unknown(process_id)
        self._gated = self._gated | frozenset(gated)
        now_s = self.clock.monotonic_s()
        if full:
            self._positions.looked_from_start(now_s, now_s - began_s)
        reached = _REACHED.decode(far or "[]")
        self._positions.took(wants, reached)
        return await self._claimed(process_id, found), reached

    async def _claim_gated(
        self, process_id: int, wants: Sequence[Want], once: Sequence[str]
    ) -> list[ClaimedJob]:
        rows = await self.work.rows("claim_gated", process_id=process_id, **_columns(wants, once))
        known, found, bounded = rows[0]
        if not known:
            raise process_unknown(process_id)
        self._gated = self._gated - {want.queue for want in wants} | frozenset(bounded)
        return await self._claimed(process_id, found)

    async def _claimed(self, process_id: int, found: str | None) -> list[ClaimedJob]:
        """The jobs of a claim; those that cannot be read are failed, not to come back again."""
        if found is None:
            return []
        try:
            return _JOBS.decode(found)
        except (msgspec.DecodeError, RecursionError):
            jobs, failed = await self._one_by_one(process_id, found)
        with _worth_having(jobs):
            await self.finish(failed)
        return jobs

    async def _one_by_one(
        self, process_id: int, found: str
    ) -> tuple[list[ClaimedJob], list[Finished]]:
        """The jobs of a claim that can be read, and what is to be written of the others."""
        head = _HEAD.match(found)
        assert head is not None
        jobs: list[ClaimedJob] = []
        failed: list[Finished] = []
        for job_id, lease, text in await self.work.rows(
            "claimed_each", process_id=process_id, lease=int(head[1])
        ):
            try:
                jobs.append(_JOB.decode(text))
            except (msgspec.DecodeError, RecursionError) as error:
                failed.append(unreadable(job_id, lease, error))
        return jobs, failed

    async def held(self, process_id: int) -> list[tuple[int, int]]:
        return await self.work.rows("held", process_id=process_id)

    async def begin(self, process_id: int, jobs: Sequence[tuple[int, int]]) -> list[int]:
        ids = [job_id for job_id, _ in jobs]
        leases = [lease for _, lease in jobs]
        rows = await self.work.rows("begin", process_id=process_id, ids=ids, leases=leases)
        begun = {job_id for (job_id,) in rows}
        return [job_id for job_id in ids if job_id not in begun]

    async def finish(self, records: Sequence[Finished]) -> int:
        if not records:
            return 0
        once = firsts(records)
        try:
            written = await self._finish(once)
        except UnavailableError as error:
            # Of what was refused nothing is written, and the day has its partition now.
            if not isinstance(error.__cause__, CheckViolation):
                raise
            written = await self._finish(once)
        return len(records) - written

    async def _finish(self, once: Sequence[Finished]) -> int:
        if all(record.step is Step.COMPLETE for record in once):
            written = await self.work.one("finish_completed", records=completed_json(once))
        else:
            written = await self.work.one(
                "finish", records=records_json(once), deaths_max=DEATHS_MAX
            )
        return int(written)

    async def rescue(
        self, process: ProcessRow, records: Sequence[Finished], *, known: bool
    ) -> int | None:
        async with self.work.transaction() as statements:
            ended = await statements.run(
                "process_end", process_id=process.id, expires_ms=process.expires_ms
            )
            if not ended:
                return None
            await _write(statements, records)
            held = await statements.rows(
                "held_by", process_id=process.id, trusted=not process.outlived
            )
            await _write(statements, rest_of(held, known=known))
            return len(held)

    async def retire(self, process_id: int) -> bool:
        async with self.work.transaction() as statements:
            if await statements.one("process_lock", process_id=process_id) is None:
                return True
            return await statements.run("process_retire", process_id=process_id) == 1


async def _write(statements: Statements, records: Sequence[Finished]) -> None:
    if records:
        await statements.one("finish", records=records_json(firsts(records)), deaths_max=DEATHS_MAX)


def _columns(wants: Sequence[Want], once: Sequence[str]) -> dict[str, list[str] | list[int]]:
    return {
        "queues": [want.queue for want in wants],
        "tenants": [want.tenant for want in wants],
        "priorities": [want.priority for want in wants],
        "jobs": [want.jobs for want in wants],
        "once": list(once),
    }


@contextmanager
def _worth_having(jobs: list[ClaimedJob]) -> Iterator[None]:
    """Lets what was claimed already come back alone; the next claim meets the same trouble."""
    try:
        yield
    except MailraceError:
        if not jobs:
            raise
