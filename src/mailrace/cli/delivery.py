"""The run behind `mailrace send`: enqueue, work off, show, and end as the person wants."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
from rich.console import Console

from mailrace.cli.logs import attempt_log
from mailrace.cli.progress import BarFace, Face, LineFace, watch
from mailrace.cli.snapshot import Snapshot, snapshot
from mailrace.cli.summary import Summary, continuing, lines, summarise
from mailrace.clock import Clock, SystemClock
from mailrace.mail.intake import RejectedFile, rejected_path
from mailrace.mail.message import Mailer
from mailrace.mail.sending import CampaignHandler, Checked, Intake, enqueue, open_campaign
from mailrace.pool import Limiter, RetrySchedule
from mailrace.queue import Batch, End, Runner, RunnerSettings
from mailrace.settings import Settings
from mailrace.wiring import Chance, Stored, event_loop, open_limiter, open_mailer, open_store


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What `send` was asked to deliver, checked.

    Attributes:
        source: The file of people as it was named, or `-`.
        arguments: The command line, to say how to go on.
    """

    source: str
    checked: Checked
    settings: Settings
    arguments: tuple[str, ...]
    limit: int | None = None
    wait: bool = True
    resend_uncertain: bool = False
    json: bool = False
    verbose: bool = False


def deliver(order: Order) -> int:
    """Sends, shows, sums up; returns the exit code."""
    with asyncio.Runner(loop_factory=event_loop()) as runner:
        summary = runner.run(_deliver(order, SystemClock()))
    if order.json:
        print(msgspec.json.format(msgspec.json.encode(summary)).decode())
    else:
        print("\n".join(lines(summary, continuing("mailrace", order.arguments))))
    return summary.exit_code


async def _deliver(order: Order, clock: Clock) -> Summary:
    stored = open_store(order.settings.store, clock)
    try:
        mailer = open_mailer(order.settings.via or "", clock)
        try:
            return await _Delivery(order, stored, mailer, clock).run()
        finally:
            await mailer.close()
    finally:
        await stored.store.close()


class _Delivery:
    """One run, from the first row to the summary."""

    def __init__(self, order: Order, stored: Stored, mailer: Mailer, clock: Clock) -> None:
        self._order = order
        self._stored = stored
        self._store = stored.store
        self._mailer = mailer
        self._clock = clock
        self._chance = Chance()
        self._face = _face(order, clock)

    async def run(self) -> Summary:
        campaign = self._order.checked.campaign
        batch, token = await open_campaign(self._store, campaign, self._chance.token())
        if self._order.resend_uncertain:
            await self._store.resend(batch.id)
        with self._face:
            intake, rejected_file = await self._enqueue(batch)
            limiter = open_limiter(
                self._order.settings.rate, f"campaign {batch.name}", self._stored, self._clock
            )
            runner = self._runner(batch, token, limiter)
            began_s = self._clock.monotonic_s()
            end = await self._work(runner, batch, limiter)
            seconds = self._clock.monotonic_s() - began_s
        return summarise(
            campaign=campaign.name,
            end=end,
            now=await self._look(batch, 0.0, ""),
            intake=intake,
            rejected_file=rejected_file,
            ended_here=sum(runner.tally.ended.values()),
            seconds=seconds,
            trouble=str(runner.tally.trouble) if runner.tally.trouble else None,
            reasons=await self._store.reasons(batch.id),
        )

    async def _enqueue(self, batch: Batch) -> tuple[Intake, Path | None]:
        people = self._order.checked.people
        path = rejected_path(self._order.source)
        with RejectedFile(path, people) as file:
            intake = await enqueue(
                self._store, batch, people, rejected=file.write, limit=self._order.limit
            )
        return intake, path if intake.rejected else None

    def _runner(self, batch: Batch, token: str, limiter: Limiter) -> Runner:
        settings = self._order.settings
        return Runner(
            store=self._store,
            batch_id=batch.id,
            handler=CampaignHandler(
                self._order.checked.campaign.compile(token),
                token=token,
                mailer=self._mailer,
                clock=self._clock,
            ),
            limiter=limiter,
            settings=RunnerSettings(
                journals=self._stored.journals,
                workers=settings.workers,
                retry=RetrySchedule.parse(settings.retry),
                wait=self._order.wait,
            ),
            clock=self._clock,
            names=self._chance.name,
            on_attempt=attempt_log(token, batch.name) if self._order.verbose else None,
        )

    async def _work(self, runner: Runner, batch: Batch, limiter: Limiter) -> End:
        """Runs to the end, watched, with Ctrl-C once for an orderly stop and twice for now."""
        running = asyncio.create_task(runner.run())
        watching = asyncio.create_task(
            watch(
                lambda rate: self._look(batch, rate, why(runner, limiter, self._order.settings)),
                self._face,
                self._clock,
            )
        )
        with _signals(runner, running, self._face):
            try:
                return await running
            except asyncio.CancelledError:
                if not running.cancelled():
                    raise
                return End.STOPPED
            finally:
                watching.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await watching

    async def _look(self, batch: Batch, rate: float, why: str) -> Snapshot:
        return snapshot(await self._store.report(batch.id), rate=rate, why=why)


def why(runner: Runner, limiter: Limiter, settings: Settings) -> str:
    """What keeps the run from going faster."""
    tally = runner.tally
    if runner.finisher.trouble is not None:
        return runner.finisher.trouble.problem
    if tally.trouble is not None and tally.paused:
        return f"the server: {tally.trouble.problem}"
    if limiter.waiting:
        return f"the limit of {settings.rate} (--rate)"
    if tally.in_hand >= settings.workers:
        return f"the server's answers to {settings.workers} connections (--workers)"
    return ""


@contextlib.contextmanager
def _signals(runner: Runner, running: asyncio.Task[End], face: Face) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    asked = False

    def stop() -> None:
        nonlocal asked
        if asked:
            face.say("Stopping now.")
            running.cancel()
            return
        asked = True
        runner.stop()
        face.say(
            f"Stopping: {runner.tally.in_hand} messages in flight will be finished. "
            "Ctrl-C again stops now."
        )

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def _face(order: Order, clock: Clock) -> Face:
    console = Console(stderr=True)
    if console.is_terminal and not order.verbose:
        return BarFace(console, clock)
    return LineFace(_to_standard_error, clock)


def _to_standard_error(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
