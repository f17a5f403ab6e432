"""The Python face: send a campaign, and follow what comes of it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from mailrace.clock import SystemClock
from mailrace.errors import MisuseError
from mailrace.events import Events
from mailrace.mail.campaign import Campaign
from mailrace.mail.intake import Rejected, Rows, listed_rows, open_table
from mailrace.mail.message import Mailer
from mailrace.mail.run import CampaignRun, Outcome, Report, RunOptions
from mailrace.mail.sending import check
from mailrace.pool import Limiter, Rate, RetrySchedule
from mailrace.queue import End
from mailrace.settings import DEFAULT_STORE, Settings, settings_of
from mailrace.wiring import Chance, open_limiter, open_mailer, open_store

_FOLLOWED = 1000


People = str | Path | Iterable[Mapping[str, str]]


async def send(
    campaign: Campaign,
    people: People,
    *,
    via: str | Mailer,
    store: str = DEFAULT_STORE,
    rate: str = "10/s",
    workers: int = 5,
    retry: str = "5m,15m,45m,135m",
    wait: bool = True,
    limit: int | None = None,
    resend_uncertain: bool = False,
    email_column: str | None = None,
    on_outcome: Callable[[Outcome], None] | None = None,
) -> Report:
    """Sends a campaign, durably: called again it goes on where the last call ended.

    Nobody is skipped, and nobody whose mail the server accepted gets it twice. A message whose
    reply was lost is held as uncertain.

    Args:
        campaign: What to send.
        people: Path of a CSV file, or mappings of variable to value with an `email`; an iterator
            is read to its end first. Who cannot be written to is counted in the report.
        via: Provider URL (`smtp://…`, `smtps://…`, `sandbox:FOLDER`), or a mailer of your own.
        store: Where the campaign is kept: `sqlite:///PATH`.
        rate: The most that may go out, over all workers and all processes on the store.
        workers: Messages under way at the same time.
        retry: Delays after temporary refusals, or `none`.
        wait: Stay until everyone is final; otherwise leave retries that are not due.
        limit: Only the first so many people.
        resend_uncertain: Send again what was handed over without a reply.
        email_column: The column with the addresses, where its name does not say so.
        on_outcome: Called with every attempt that ended. It must not block.

    Raises:
        MisuseError: Something given is wrong; nothing was enqueued.
        ConflictError: The name belongs to another campaign.
        UnavailableError: The store cannot be used; what is known stays in the journal.
    """
    settings = _settings(via, store=store, rate=rate, workers=workers, retry=retry)
    options = _options(settings, wait=wait, limit=limit, resend_uncertain=resend_uncertain)
    async with _opened(
        campaign,
        people,
        email_column=email_column,
        via=via,
        settings=settings,
        options=options,
        on_outcome=on_outcome,
    ) as run:
        end = await run.work()
        return await run.report(end)


async def stream(
    campaign: Campaign,
    people: People,
    *,
    via: str | Mailer,
    store: str = DEFAULT_STORE,
    rate: str = "10/s",
    workers: int = 5,
    retry: str = "5m,15m,45m,135m",
    wait: bool = True,
    limit: int | None = None,
    resend_uncertain: bool = False,
    email_column: str | None = None,
) -> AsyncGenerator[Outcome, None]:
    """Sends like `send`, and yields the outcome of every attempt as it ends.

    A reader that falls a thousand outcomes behind holds the sending back. One that leaves early
    stops it in good order: what is in flight is finished, the rest waits for the next call. Leave
    with `contextlib.aclosing` around it, or nobody knows when that has come to its end.

    Raises:
        As `send`.
    """
    settings = _settings(via, store=store, rate=rate, workers=workers, retry=retry)
    options = _options(settings, wait=wait, limit=limit, resend_uncertain=resend_uncertain)
    outcomes = _Outcomes()
    async with _opened(
        campaign,
        people,
        email_column=email_column,
        via=via,
        settings=settings,
        options=options,
        on_outcome=outcomes.add,
        held_back=outcomes,
    ) as run:
        working = asyncio.create_task(run.work())
        working.add_done_callback(outcomes.finish)
        try:
            async for outcome in outcomes:
                yield outcome
        finally:
            run.runner.stop()
            outcomes.let_go()
            await working


class _Outcomes:
    """Outcomes between the workers and a reader; full, it lets nothing more depart."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Outcome | None] = asyncio.Queue()
        self._room = asyncio.Event()
        self._room.set()
        self._left = False

    def add(self, outcome: Outcome) -> None:
        if self._left:
            return
        self._queue.put_nowait(outcome)
        if self._queue.qsize() >= _FOLLOWED:
            self._room.clear()

    def finish(self, _: asyncio.Task[End]) -> None:
        self._queue.put_nowait(None)

    def let_go(self) -> None:
        """The reader has left: nothing is kept or held back any more."""
        self._left = True
        self._room.set()

    async def room(self) -> None:
        await self._room.wait()

    async def __aiter__(self) -> AsyncIterator[Outcome]:
        while (outcome := await self._queue.get()) is not None:
            if self._queue.qsize() < _FOLLOWED:
                self._room.set()
            yield outcome


class _HeldBack:
    """A limit that also waits for the reader."""

    def __init__(self, limiter: Limiter, outcomes: _Outcomes) -> None:
        self._limiter = limiter
        self._outcomes = outcomes

    @property
    def waiting(self) -> int:
        return self._limiter.waiting

    async def wait(self) -> None:
        await self._outcomes.room()
        await self._limiter.wait()


@asynccontextmanager
async def _opened(
    campaign: Campaign,
    people: People,
    *,
    email_column: str | None,
    via: str | Mailer,
    settings: Settings,
    options: RunOptions,
    on_outcome: Callable[[Outcome], None] | None,
    held_back: _Outcomes | None = None,
) -> AsyncIterator[CampaignRun]:
    """A campaign with its people taken in, ready to be worked off."""
    clock, chance, events = SystemClock(), Chance(), Events()
    if on_outcome is not None:
        events.follow(Outcome, on_outcome)
    rows: Rows
    if isinstance(people, str | Path):
        rows = open_table(Path(people), email_column=email_column)
    else:
        rows = listed_rows(people, email_column=email_column)
    checked = await asyncio.to_thread(check, campaign, rows, rng=chance.rng)
    mailer = open_mailer(via, clock) if isinstance(via, str) else via
    async with AsyncExitStack() as stack:
        if isinstance(via, str):
            stack.push_async_callback(mailer.close)
        stored = await open_store(settings.store, clock, journals=settings.journals)
        stack.push_async_callback(stored.store.close)
        limiter = open_limiter(settings.rate, f"campaign {campaign.name}", stored, clock)
        run = await CampaignRun.open(
            checked,
            store=stored.store,
            place=stored.place,
            mailer=mailer,
            limiter=limiter if held_back is None else _HeldBack(limiter, held_back),
            options=options,
            clock=clock,
            names=chance.name,
            events=events,
        )
        await run.take_in(rejected=_nowhere)
        yield run


def _settings(via: str | Mailer, **values: str | int) -> Settings:
    return settings_of({"via": via if isinstance(via, str) else None, **values})


def _options(
    settings: Settings, *, wait: bool, limit: int | None, resend_uncertain: bool
) -> RunOptions:
    if limit is not None and limit < 1:
        raise MisuseError(f"limit is {limit}", hint="give 1 or more")
    if settings.rate.strip().lower() != "none":
        Rate.parse(settings.rate)  # a wrong one has to be found before there is a store
    return RunOptions(
        workers=settings.workers,
        buffer=settings.buffer,
        retry=RetrySchedule.parse(settings.retry),
        wait=wait,
        limit=limit,
        resend_uncertain=resend_uncertain,
    )


def _nowhere(row: Rejected) -> None:
    """Rows that cannot be sent to are counted in the report."""
