"""The run behind `mailrace send`: enqueue, work off, show, and end as the person wants."""

import asyncio
import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mailrace.cli.logs import log_events
from mailrace.cli.output import as_json, note, tell
from mailrace.cli.progress import Face, face_for, watch
from mailrace.cli.snapshot import Snapshot, snapshot
from mailrace.cli.summary import Summary, continuing, lines, summarise
from mailrace.clock import Clock, SystemClock
from mailrace.errors import ConflictError, MisuseError
from mailrace.events import Events
from mailrace.mail.intake import Rejected, RejectedFile, rejected_path
from mailrace.mail.message import Mailer
from mailrace.mail.run import CampaignRun, RunOptions
from mailrace.mail.sending import Checked
from mailrace.pool import Limiter, RetrySchedule
from mailrace.queue import End, Runner
from mailrace.queue.words import counted
from mailrace.settings import Settings
from mailrace.wiring import Chance, Stored, event_loop, open_limiter, open_mailer, open_store


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What `send` was asked to deliver, checked.

    Attributes:
        source: The file of people as it was named, or `-`.
        arguments: The command line, to say how to go on; empty where nothing does.
    """

    source: str
    checked: Checked
    settings: Settings
    arguments: tuple[str, ...] = ()
    limit: int | None = None
    wait: bool = True
    resend_uncertain: bool = False
    json: bool = False
    verbose: bool = False


def deliver(order: Order, events: Events) -> int:
    """Sends, shows, sums up; returns the exit code."""
    if order.verbose:
        log_events(events)
    with asyncio.Runner(loop_factory=event_loop()) as runner:
        summary = runner.run(_deliver(order, events, SystemClock()))
    if order.json:
        tell(as_json(summary))
    else:
        command = continuing("mailrace", order.arguments) if order.arguments else None
        tell("\n".join(lines(summary, command)))
    return summary.exit_code


async def _deliver(order: Order, events: Events, clock: Clock) -> Summary:
    settings = order.settings
    stored = await open_store(
        settings.store, clock, journals=settings.journals, redis=settings.redis
    )
    try:
        mailer = open_mailer(order.settings.via or "", clock)
        try:
            return await _Delivery(order, stored, mailer, events, clock).run()
        finally:
            await mailer.close()
    finally:
        await stored.store.close()


class _Delivery:
    """One run, watched, from the first row to the summary."""

    def __init__(
        self, order: Order, stored: Stored, mailer: Mailer, events: Events, clock: Clock
    ) -> None:
        self._order = order
        self._stored = stored
        self._mailer = mailer
        self._events = events
        self._clock = clock
        self._face = face_for(clock, plain=order.verbose)
        self._limiter = open_limiter(
            order.settings.rate, f"campaign {order.checked.campaign.name}", stored, clock
        )

    async def run(self) -> Summary:
        try:
            run = await self._open()
        except ConflictError as error:  # nothing was begun: what was given has to change
            raise MisuseError(error.problem, hint=error.hint) from error
        with self._face:
            rejected = await self._take_in(run)
            end = await self._work(run)
        return summarise(await run.report(end), rejected)

    async def _open(self) -> CampaignRun:
        settings = self._order.settings
        return await CampaignRun.open(
            self._order.checked,
            store=self._stored.store,
            place=self._stored.place,
            mailer=self._mailer,
            limiter=self._limiter,
            options=RunOptions(
                workers=settings.workers,
                buffer=settings.buffer,
                retry=RetrySchedule.parse(settings.retry),
                wait=self._order.wait,
                limit=self._order.limit,
                resend_uncertain=self._order.resend_uncertain,
            ),
            clock=self._clock,
            names=Chance().name,
            events=self._events,
        )

    async def _take_in(self, run: CampaignRun) -> Path | None:
        """Enqueues the people; returns the file of the rows that were left out, if any were."""
        path = rejected_path(self._order.source)
        refused: MisuseError | None = None
        with RejectedFile(path, self._order.checked.people) as file:

            def reject(row: Rejected) -> None:
                nonlocal refused
                try:
                    if refused is None:
                        file.write(row)
                except MisuseError as error:  # a bad row stops nothing, wherever it goes
                    refused = error

            await run.take_in(rejected=reject, progress=self._face.reading)
        if refused is not None:
            note(f"mailrace: {refused}")
        return path if file.count else None

    async def _work(self, run: CampaignRun) -> End:
        """Runs to the end, with Ctrl-C once for an orderly stop and twice for one at once."""
        working = asyncio.create_task(run.work())
        watching = asyncio.create_task(
            watch(lambda rate: self._look(run, rate), self._face, self._clock)
        )
        with _signals(run.runner, working, self._face):
            try:
                return await working
            except asyncio.CancelledError:
                if not working.cancelled():
                    raise
                return End.STOPPED
            finally:
                watching.cancel()
                (fault,) = await asyncio.gather(watching, return_exceptions=True)
                if isinstance(fault, Exception):
                    note(f"mailrace: the progress could not be shown: {fault}")

    async def _look(self, run: CampaignRun, rate: float) -> Snapshot:
        why = bottleneck(run.runner, self._limiter, self._order.settings)
        return snapshot(await run.standing(), rate=rate, why=why)


def bottleneck(runner: Runner, limiter: Limiter, settings: Settings) -> str:
    """What keeps the run from going faster."""
    tally = runner.tally
    if runner.finisher.trouble is not None:
        return runner.finisher.trouble.problem
    if tally.trouble is not None and tally.paused:
        return tally.trouble.problem
    if limiter.waiting:
        return f"the limit of {settings.rate} (--rate)"
    if tally.in_hand >= settings.workers:
        connections = counted(settings.workers, "connection")
        return f"the server, which takes its time on {connections} (--workers)"
    return ""


@contextlib.contextmanager
def _signals(runner: Runner, running: asyncio.Task[End], face: Face) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    asked = False

    def stop() -> None:
        nonlocal asked
        if asked:
            running.cancel()
            face.say("Stopping at once.")
            return
        asked = True
        departed = runner.committed
        runner.stop()
        flying = f" {counted(departed, 'message')} in flight will be finished." if departed else ""
        face.say(f"Stopping.{flying} Ctrl-C again stops at once.")

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
