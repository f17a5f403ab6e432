"""The face of the durable queue: enqueue, look, decide."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from itertools import islice
from math import inf
from typing import Any, Final, Self, TypeVar, Unpack

import msgspec

from mailrace.errors import ConflictError, MisuseError
from mailrace.pool import RateLimit
from mailrace.queue.batches import Batch, BatchReport
from mailrace.queue.cron import CatchUp, CronExpression, CronSchedule
from mailrace.queue.drafting import Drafting, JobChoices
from mailrace.queue.jobrows import EndedCount, JobDetail, JobFilter, JobRow
from mailrace.queue.jobs import Enqueued, NewJob
from mailrace.queue.limits import LimitRow, is_made_from, is_template
from mailrace.queue.payloadkeys import PayloadKeys
from mailrace.queue.queuerules import QueueRules
from mailrace.queue.schedules import ScheduleRow
from mailrace.queue.states import REVIVABLE, WAITING
from mailrace.queue.store import Store

# One transaction: all of it or nothing.
PART: Final = 5000
_PURGED: Final = 10_000
_Item = TypeVar("_Item")


class Queue:
    """Durable jobs in one store, for programs that enqueue them or look after them.

    A job that an enqueue returned is committed: it survives the process, the machine's crash, and
    the restart of the database.
    """

    def __init__(self, store: Store, drafting: Drafting) -> None:
        self.store = store
        self._drafting = drafting
        self.keys = PayloadKeys(store, drafting)
        """With which keys stored payloads are sealed."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Idempotent."""
        await self.store.close()

    # Enqueueing

    async def enqueue(
        self,
        kind: str | Callable[..., Any],
        payload: object = None,
        **choices: Unpack[JobChoices],
    ) -> Enqueued:
        """Adds one job, and returns when it is durable.

        Args:
            kind: The name of a kind, or the function that was registered for it.
            payload: Anything that JSON can hold and the kind's type allows.

        Raises:
            MisuseError: Something given is wrong.
            ConflictError: The queue is draining, or the batch is sealed.
            UnavailableError: The store is out of reach; repeat it, with an idempotency key if the
                job must not be made twice.
        """
        (answer,) = await self.store.enqueue([self.job(kind, payload, **choices)])
        return answer

    async def enqueue_many(
        self,
        kind: str | Callable[..., Any],
        payloads: Iterable[object],
        **choices: Unpack[JobChoices],
    ) -> list[Enqueued]:
        """Adds a job for each payload, all with the same choices, 5,000 in a transaction.

        Raises:
            As `enqueue`; what earlier transactions added stays.
        """
        for name in ("unique", "idempotency_key"):
            if name in choices:
                raise MisuseError(
                    f"{name} for many jobs would leave one of them",
                    hint="make each with job(…) and give them to enqueue_jobs",
                )
        answers: list[Enqueued] = []
        source = iter(_several("payloads", payloads))
        while part := list(islice(source, PART)):
            answers += await self.store.enqueue(self._drafting.jobs(kind, part, choices))
        return answers

    def job(
        self,
        kind: str | Callable[..., Any],
        payload: object = None,
        **choices: Unpack[JobChoices],
    ) -> NewJob:
        """A job that is not enqueued yet, for `enqueue_jobs`, `batch` or `schedule`."""
        return self._drafting.job(kind, payload, choices)

    async def enqueue_jobs(self, jobs: Iterable[NewJob]) -> list[Enqueued]:
        """Adds jobs, 5,000 in a transaction; answers in their order.

        Raises:
            As `enqueue`; what earlier transactions added stays.
        """
        answers: list[Enqueued] = []
        source = iter(_several("jobs", jobs))
        while part := [_made("job", job) for job in islice(source, PART)]:
            answers += await self.store.enqueue(part)
        return answers

    @asynccontextmanager
    async def batch(self, name: str, *, then: NewJob | None = None) -> AsyncIterator[Batch]:
        """A counted set of jobs, sealed at the end of the block: enqueue with `batch_id=batch.id`.

        Where the block is left by an exception it stays open: the same call goes on with it.

        Args:
            then: Enqueued once, when the set is sealed and every job in it is final.

        Raises:
            MisuseError: `then` is no job.
            ConflictError: The batch of that name is sealed already.
        """
        if then is not None:
            _made("then", then)
        batch = await self.store.open_batch(name, "batch", b"{}", completion=then)
        if batch.sealed:
            raise ConflictError(f"the batch {name!r} is sealed", hint="choose another name")
        yield batch
        await self.store.seal_batch(batch.id)

    async def batch_report(self, batch_id: int) -> BatchReport:
        return await self.store.report(batch_id)

    # Looking and deciding

    async def find(
        self, where: JobFilter | None = None, *, limit: int = 100, before_id: int | None = None
    ) -> list[JobRow]:
        """Jobs, the newest first."""
        return await self.store.find(where or JobFilter(), limit=limit, before_id=before_id)

    async def detail(self, job_id: int) -> JobDetail | None:
        """All that is known of a job; its payload opened if it was sealed."""
        found = await self.store.detail(job_id)
        sealer = self._drafting.sealer
        if found is None or sealer is None:
            return found
        opened = sealer.open(bytes(found.payload), about=found.row.kind.encode())
        return msgspec.structs.replace(found, payload=msgspec.Raw(opened))

    async def dead_letters(
        self, where: JobFilter | None = None, *, limit: int = 100, before_id: int | None = None
    ) -> list[JobRow]:
        """Jobs that ended without being done, the newest first, with reason and kind of error."""
        where = _narrowed(where, REVIVABLE)
        return await self.store.find(where, limit=limit, before_id=before_id)

    async def dead_letter_counts(self, where: JobFilter | None = None) -> list[EndedCount]:
        """The same by state, queue, kind, category and reason, the largest group first."""
        return await self.store.ended_counts(where or JobFilter())

    async def retry(self, where: JobFilter) -> int:
        """Has dead letters run again, their attempts begun anew; returns how many.

        Raises:
            MisuseError: The filter leaves out no job.
        """
        return await self.store.revive(_narrowed(_some(where), REVIVABLE))

    async def cancel(self, where: JobFilter) -> int:
        """Cancels waiting jobs, and asks for it where they run; returns how many.

        Raises:
            MisuseError: The filter leaves out no job.
        """
        return await self.store.cancel(_some(where))

    async def reschedule(self, where: JobFilter, delay_s: float) -> int:
        """Gives waiting jobs another time, counted from now; returns how many.

        Raises:
            MisuseError: The filter leaves out no job, or the delay is none.
        """
        span_s: object = delay_s
        if isinstance(span_s, bool) or not isinstance(span_s, int | float) or not 0 <= span_s < inf:
            raise MisuseError(f"delay_s is {delay_s!r}", hint="give seconds, zero or more")
        return await self.store.reschedule(_some(where), int(delay_s * 1000))

    async def delete(self, where: JobFilter) -> int:
        """Removes final jobs for good; returns how many.

        Raises:
            MisuseError: The filter leaves out no job.
        """
        return await self.store.delete(_some(where))

    # Queues

    async def rules(self, name: str) -> QueueRules:
        """What holds for a queue over the whole cluster."""
        for rules in await self.store.queue_rules():
            if rules.name == name:
                return rules
        return QueueRules(name=name)

    async def configure(self, name: str, /, **changes: Any) -> QueueRules:
        """Changes what holds for a queue, over the whole cluster, while everybody works.

        Args:
            changes: `concurrency`, `concurrency_per_key`, `limits`, `ageing_s`, as in `QueueRules`.

        Raises:
            MisuseError: A name that is none, or a value that cannot be.
        """
        known = set(QueueRules.__struct_fields__) - {"name"}
        for field in changes:
            if field not in known:
                raise MisuseError(
                    f"{field!r} is nothing that a queue has",
                    hint=f"there are {', '.join(sorted(known))}",
                )
        if isinstance(changes.get("limits"), list):
            changes["limits"] = tuple(changes["limits"])
        await self.store.set_queue(QueueRules(name=name, **changes), only=tuple(changes))
        return await self.rules(name)

    async def pause(self, name: str) -> None:
        """Nothing is claimed from a queue until `resume`; what runs goes on."""
        await self.configure(name, paused=True)

    async def resume(self, name: str) -> None:
        """Ends `pause` and `drain`."""
        await self.configure(name, paused=False, draining=False)

    async def drain(self, name: str) -> None:
        """A queue takes in nothing new; what is there is worked off."""
        await self.configure(name, draining=True)

    async def purge(self, name: str) -> int:
        """Cancels everything that waits in a queue; returns how many."""
        cancelled = 0
        where = JobFilter(queue=name, states=WAITING)
        while part := await self.store.cancel(where, limit=_PURGED):
            cancelled += part
            await asyncio.sleep(0)
        return cancelled

    # Limits and schedules

    async def set_limit(
        self, name: str, rates: str, *, margin: float = 0.0, adaptive: bool = False
    ) -> None:
        """Makes or changes a limit over the whole cluster, while everybody works.

        A name with `{tenant}`, `{process}` or `{host}` is a template: where a queue names it, each
        tenant, process or machine gets a limit with these rates. Those that were made from it
        change with it, those that somebody set otherwise do not.

        Args:
            rates: One or several windows: `10/s, 1000/h`. All hold, in every sliding window.
            margin: The share that is kept back.
            adaptive: Slowed down by handlers that answer `SlowDown`; it comes back by itself.

        Raises:
            MisuseError: The text is no limit.
        """
        RateLimit.parse(rates, margin=margin)
        limit = LimitRow(name=name, rates=rates, margin=margin, adaptive=adaptive)
        made = await self._made_from(name) if is_template(name) else []
        for one in (limit, *(msgspec.structs.replace(limit, name=other) for other in made)):
            await self.store.set_limit(one)

    async def _made_from(self, name: str) -> list[str]:
        """The limits that have the rates of a template."""
        limits = await self.store.limits()
        templates = [limit for limit in limits if limit.name == name]
        return [
            limit.name
            for template in templates
            for limit in limits
            if is_made_from(limit, template)
        ]

    async def limits(self) -> list[LimitRow]:
        """All limits, with their pace and their next slot."""
        return await self.store.limits()

    async def remove_limit(self, name: str) -> bool:
        """Removes a limit; false if there is none. Jobs of queues that still name it wait."""
        return await self.store.remove_limit(name)

    async def schedule(
        self,
        name: str,
        cron: str,
        job: NewJob,
        *,
        zone: str = "UTC",
        catch_up: CatchUp = CatchUp.ONE,
    ) -> None:
        """Has a job enqueued again and again, once for each slot over the whole cluster.

        A program may say it at each start: one that is there and paused stays paused.

        Args:
            cron: Five fields, or six with seconds first, or `@every 5m`.
            zone: The IANA time zone that the fields are meant in.
            catch_up: What becomes of slots that passed while nothing ran.

        Raises:
            MisuseError: The text is no schedule, there is no such zone, or the job is none.
        """
        _made("job", job)
        expression = CronExpression.parse(cron)
        CronSchedule(expression=expression, zone=zone, catch_up=catch_up)
        paused = any(row.paused for row in await self.store.schedules() if row.name == name)
        await self.store.put_schedule(
            ScheduleRow(name=name, cron=cron, zone=zone, catch_up=catch_up, job=job, paused=paused)
        )

    async def schedules(self) -> list[ScheduleRow]:
        """All schedules, each with the slot that was fired last."""
        return await self.store.schedules()

    async def pause_schedule(self, name: str) -> None:
        """A schedule makes no jobs until `resume_schedule`.

        Raises:
            ConflictError: There is no such schedule.
            MisuseError: It cannot be read.
        """
        await self._pause_schedule(name, paused=True)

    async def resume_schedule(self, name: str) -> None:
        """Ends `pause_schedule`; slots that passed count as the schedule's catch-up says.

        Raises:
            ConflictError: There is no such schedule.
            MisuseError: It cannot be read.
        """
        await self._pause_schedule(name, paused=False)

    async def remove_schedule(self, name: str) -> bool:
        """Removes a schedule; false if there is none. The jobs that it made stay."""
        return await self.store.remove_schedule(name)

    async def _pause_schedule(self, name: str, *, paused: bool) -> None:
        for row in await self.store.schedules():
            if row.name == name:
                await self.store.put_schedule(msgspec.structs.replace(row, paused=paused))
                return
        raise ConflictError(f"there is no schedule {name!r}", hint="schedules() tells which are")


def _made(name: str, job: object) -> NewJob:
    if not isinstance(job, NewJob):
        raise MisuseError(f"{name} is {job!r}", hint="give queue.job(kind, payload)")
    return job


def _several(name: str, given: Iterable[_Item]) -> Iterable[_Item]:
    value: object = given
    if isinstance(value, str | bytes | bytearray | Mapping) or not isinstance(value, Iterable):
        raise MisuseError(f"{name} is {str(value)[:50]!r}", hint="give a list, or any iterable")
    return given


def _some(where: JobFilter) -> JobFilter:
    """The filter, if it leaves out anything."""
    given: object = where
    if not isinstance(given, JobFilter):
        raise MisuseError(f"the filter is {given!r}", hint="give a JobFilter")
    if where.everything:
        raise MisuseError(
            "it is not said which jobs",
            hint="give the JobFilter something, all of the states if all are meant",
        )
    return where


def _narrowed(where: JobFilter | None, states: tuple[Any, ...]) -> JobFilter:
    where = where or JobFilter()
    if where.states is not None:
        return where
    return msgspec.structs.replace(where, states=states)
