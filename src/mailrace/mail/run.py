"""One run of a campaign by this process, and the report at its end."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self
from uuid import UUID

import msgspec

from mailrace.clock import Clock
from mailrace.events import Events
from mailrace.mail.intake import Rejected
from mailrace.mail.message import Mailer
from mailrace.mail.sending import (
    CampaignHandler,
    Checked,
    Intake,
    address_of,
    enqueue,
    open_campaign,
)
from mailrace.pool import Limiter, RetrySchedule
from mailrace.queue import (
    Attempted,
    Batch,
    BatchReport,
    End,
    JobState,
    Place,
    Reason,
    Rescuer,
    Runner,
    RunnerSettings,
    Store,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How a run goes about its campaign.

    Attributes:
        workers: Messages under way at the same time.
        buffer: Messages at most that this process has claimed and not begun.
        retry: When to try again after a temporary refusal.
        wait: Stay until everyone is final; otherwise leave retries that are not due.
        limit: Take in only the first so many people.
        resend_uncertain: Send again what was handed over without a reply.
    """

    workers: int = 5
    buffer: int = 1000
    retry: RetrySchedule = field(default_factory=RetrySchedule)
    wait: bool = True
    limit: int | None = None
    resend_uncertain: bool = False


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Where a campaign stands after a run. `sent + failed + waiting + uncertain` is `people`.

    Attributes:
        people: Recipients of the campaign, from this run and from earlier ones.
        added: Of these, new in this run.
        known: Rows whose address the campaign had already.
        rejected: Rows that cannot be sent to.
        ended_here: Attempts that ended in this run, in this process.
        seconds: Time spent sending, without reading the people.
        rate: `ended_here` a second.
        trouble: What was in the way at the end, if anything.
        next_due_ms: When the first waiting retry is due, Unix milliseconds.
        reasons: Why messages are not sent, the most frequent first.
    """

    campaign: str
    end: End
    people: int
    sent: int
    failed: int
    waiting: int
    uncertain: int
    added: int
    known: int
    rejected: int
    ended_here: int
    seconds: float
    rate: float
    trouble: str | None
    next_due_ms: int | None
    reasons: list[Reason]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How one attempt to send one message ended.

    Attributes:
        state: `completed` (accepted by the server), `failed`, `retryable` or `uncertain`.
        message: The local part of its Message-ID.
        reason: A short text to group by, for example `550 5.1.1`.
        detail: The server's words.
        attempt: 1 for the first.
        worker: The number of the worker that made it.
    """

    state: JobState
    address: str
    message: str
    reason: str
    detail: str
    attempt: int
    worker: int


class CampaignRun:
    """Takes the people in, sends, and reports.

    Use `open`, then `take_in` and `work`, each once.
    """

    def __init__(
        self,
        batch: Batch,
        checked: Checked,
        *,
        store: Store,
        runner: Runner,
        clock: Clock,
        limit: int | None,
    ) -> None:
        self.batch = batch
        self.runner = runner
        self._checked = checked
        self._store = store
        self._clock = clock
        self._limit = limit
        self._intake = Intake()
        self._seconds = 0.0

    @classmethod
    async def open(
        cls,
        checked: Checked,
        *,
        store: Store,
        place: Place,
        mailer: Mailer,
        limiter: Limiter,
        options: RunOptions,
        clock: Clock,
        names: Callable[[], UUID],
        events: Events,
    ) -> Self:
        """Opens the campaign in its store, anew or to go on.

        Args:
            events: Where the queue's events go, and an `Outcome` for every attempt that ended if
                somebody follows them already.

        Raises:
            ConflictError: The name belongs to another campaign.
        """
        batch, token = await open_campaign(store, checked.campaign, names().hex[:20])
        if options.resend_uncertain:
            await Rescuer(store, place, clock).rescue()  # what a killed run left comes first
            await store.resend(batch.id)
        if events.followed(Outcome):
            events.follow(Attempted, lambda attempted: events.emit(_outcome(attempted, token)))
        runner = Runner(
            store=store,
            batch=batch,
            handler=CampaignHandler(
                checked.campaign.compile(token), token=token, mailer=mailer, clock=clock
            ),
            limiter=limiter,
            settings=RunnerSettings(
                place=place,
                workers=options.workers,
                buffer=options.buffer,
                retry=options.retry,
                wait=options.wait,
            ),
            clock=clock,
            names=names,
            events=events,
        )
        return cls(batch, checked, store=store, runner=runner, clock=clock, limit=options.limit)

    async def take_in(
        self,
        *,
        rejected: Callable[[Rejected], None],
        progress: Callable[[Intake], None] | None = None,
    ) -> None:
        """Enqueues everybody whom the campaign has not got yet."""
        self._intake = await enqueue(
            self._store,
            self.batch,
            self._checked.people,
            rejected=rejected,
            progress=progress,
            limit=self._limit,
        )

    async def work(self) -> End:
        """Sends until everyone is final, or the runner is stopped."""
        began_s = self._clock.monotonic_s()
        try:
            return await self.runner.run()
        finally:
            self._seconds = self._clock.monotonic_s() - began_s

    async def standing(self) -> BatchReport:
        return await self._store.report(self.batch.id)

    async def report(self, end: End) -> Report:
        standing = await self.standing()
        counts, tally = standing.counts, self.runner.tally
        ended_here = sum(tally.ended.values())
        return Report(
            campaign=self.batch.name,
            end=end,
            people=standing.accepted,
            sent=counts[JobState.COMPLETED],
            failed=counts[JobState.FAILED],
            waiting=standing.accepted - standing.final,
            uncertain=counts[JobState.UNCERTAIN],
            added=self._intake.added,
            known=self._intake.known,
            rejected=self._intake.rejected,
            ended_here=ended_here,
            seconds=round(self._seconds, 3),
            rate=round(ended_here / self._seconds, 1) if self._seconds else 0.0,
            trouble=str(tally.trouble) if tally.trouble else None,
            next_due_ms=standing.next_due_ms,
            reasons=await self._store.reasons(self.batch.id),
        )


def _outcome(attempted: Attempted, token: str) -> Outcome:
    return Outcome(
        state=attempted.record.state,
        address=address_of(attempted.job),
        message=f"{token}.{attempted.job.id}",
        reason=attempted.result.reason,
        detail=attempted.result.detail,
        attempt=attempted.job.attempt,
        worker=attempted.worker,
    )
