"""The pool: what a program makes, enters, and hands its work to."""

from collections.abc import Hashable, Iterable
from dataclasses import fields, replace
from random import Random
from types import TracebackType
from typing import Any, Self, Unpack

from mailrace.clock import Clock, SystemClock
from mailrace.errors import MisuseError
from mailrace.events import Events
from mailrace.pool.breaker_states import BreakerStanding
from mailrace.pool.checkup import Checkup
from mailrace.pool.closing import CloseReport, Closing, closing_s
from mailrace.pool.dead import DeadLetters, reprocess
from mailrace.pool.engine import Engine
from mailrace.pool.errors import PoolClosedError
from mailrace.pool.health import Health
from mailrace.pool.job import Job
from mailrace.pool.ledger import Ledger
from mailrace.pool.numbers import Numbers
from mailrace.pool.options import ALL_KEYS, Duration, JobOptions, OptionChanges, Terms
from mailrace.pool.plugins import Plugin, checked
from mailrace.pool.settings import PoolSettings, SettingChanges, near
from mailrace.pool.states import JobState
from mailrace.pool.stream import OutcomeStream, Slow
from mailrace.pool.submitter import Submitter


class View(Submitter):
    """A pool as seen by jobs with options of their own. Made by `Pool.options`."""

    def __init__(self, pool: "Pool", options: JobOptions) -> None:
        super().__init__(Terms(options))
        self._pool = pool

    def _started(self) -> Engine:
        self._engine = self._pool.engine
        return self._engine


class Pool(Submitter):
    """Workers, a bounded queue and the policies around them, on one event loop.

        async with Pool(workers=10) as pool:
            job = await pool.submit(fetch, url)
            page = await job

    Coroutine functions run on the loop, ordinary functions in the pool's threads, and functions
    submitted with `options(kind="process")` in its processes. Leaving `async with` waits until
    every job is done; leaving it by an exception hands back what waits and cancels what runs.

    Every accepted job has exactly one final outcome, and `ledger()` adds up at any moment. What
    waits lives in memory: it is gone with the process.

    What asks for new work or another behaviour raises `PoolClosedError` once it closes.

    Args:
        settings: Everything that can be set; the default profile if not given.
        name: What threads, tasks and events call it.
        plugins: What is to be done around every attempt; the first one is the outermost.
        events: Where the pool says what happens besides outcomes: `WorkerDied`, `Scaled`,
            `PluginFailed`.
        clock: Where it has the time from.
        random: Where it has its chance from, for jitter.
        changes: Settings that differ, by name; `workers` sets both bounds of their number.

    Raises:
        MisuseError: A setting is unknown or wrong.
    """

    def __init__(
        self,
        settings: PoolSettings | None = None,
        *,
        name: str = "pool",
        plugins: Iterable[Plugin] = (),
        events: Events | None = None,
        clock: Clock | None = None,
        random: Random | None = None,
        **changes: Unpack[SettingChanges],
    ) -> None:
        if settings is not None and not isinstance(settings, PoolSettings):
            raise MisuseError(f"settings is {settings!r}", hint="write Pool(workers=10) and so on")
        self._settings = (settings or PoolSettings()).changed(**changes)
        super().__init__(Terms(self._settings.job))
        self._name = name
        self._plugins = checked(plugins)
        self._events = events or Events()
        self._clock = clock or SystemClock()
        self._random = random or Random()  # noqa: S311 - jitter is no secret
        self._checkup: Checkup | None = None
        self._closing: Closing | None = None
        self._asked_to_close = False

    def __repr__(self) -> str:
        workers = "" if self._engine is None else f", {len(self._engine.crew)} workers"
        return f"<Pool {self._name}: {self._state()}{workers}>"

    @property
    def name(self) -> str:
        """What threads, tasks, events and metrics call it."""
        return self._name

    @property
    def engine(self) -> Engine:
        """The inside of the pool, for its own parts.

        Raises:
            MisuseError: The pool was not started.
        """
        if self._engine is None:
            raise MisuseError(
                f"pool {self._name} is not started", hint="use it in: async with Pool() as pool"
            )
        return self._engine

    @property
    def settings(self) -> PoolSettings:
        """What is set now."""
        return self._settings

    def options(
        self, options: JobOptions | None = None, /, **changes: Unpack[OptionChanges]
    ) -> View:
        """The same pool for jobs that differ from the pool's `job` options in these.

            urgent = pool.options(priority="high", timeout=5)
            job = await urgent.submit(fetch, url)

        Cheap, and cheaper still if it is kept for many jobs.

        Args:
            options: All of them at once.
            changes: Some of them, by name.

        Raises:
            MisuseError: An option is unknown or wrong.
        """
        if options is not None and not isinstance(options, JobOptions):
            raise MisuseError(f"options is {options!r}", hint='write options(priority="high")')
        base = options or self._settings.job
        known = [field.name for field in fields(JobOptions)]
        for name in changes:
            if name not in known:
                raise MisuseError(f"a job has no option {name!r}", hint=near(name, known))
        return View(self, replace(base, **changes))

    async def start(self) -> Self:
        """Starts the workers on the running event loop. Doing it again does nothing.

        Raises:
            PoolClosedError: It was closed: a pool is started once.
            MisuseError: It runs on another event loop.
        """
        if self._engine is None:
            self._engine = Engine(
                self._name,
                self._settings,
                plugins=self._plugins,
                clock=self._clock,
                random=self._random,
                events=self._events,
            )
            self._engine.start()
        elif self._closing is not None:
            raise PoolClosedError(f"pool {self._name} is closed", hint="make a new one")
        self._here()
        return self

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # A body that was turned away because the pool closes already does not hurry that.
        turned_away = isinstance(error, PoolClosedError) and self._closing is not None
        try:
            await self.close(None if error is None or turned_away else 0)
        except BaseException:  # cancelled while it waited: nothing goes on behind the block
            if self._closing is not None:
                self._closing.hurry(0.0)
                await self._closing.report()
            raise

    async def close(
        self, timeout: Duration | None = 30.0, *, finish_queue: bool = True
    ) -> CloseReport:
        """Takes no more jobs, finishes what there is, and ends.

        What is not done by the deadline is handed back: its job ends in `handed back`, and it is
        listed in the report. Coroutines are cancelled then and have their grace, processes are
        killed, threads left to themselves. What waits is handed back at once in a paused pool.

        Closing again, also meanwhile, waits for the same end, with the earlier deadline of the
        two. A job of the pool may close it: that job is not waited for.

        Args:
            timeout: 0 for at once; `None` for as long as it takes.
            finish_queue: Run what waits; otherwise hand it back and finish what runs.
        """
        engine = self._here()
        timeout_s = closing_s(timeout)
        if self._closing is None:
            self._closing = Closing(engine, finish_queue=finish_queue)
            self._closing.begin(timeout_s)
        else:
            self._closing.hurry(timeout_s)
        return await self._closing.report()

    def close_soon(self, timeout: Duration | None = 30.0) -> None:
        """Begins to close; for signal handlers. The second call means: now.

        loop.add_signal_handler(signal.SIGTERM, pool.close_soon)
        """
        engine = self._here()
        if self._closing is None:
            self._closing = Closing(engine, finish_queue=True)
            self._closing.begin(closing_s(timeout))
        else:  # it may be closing for another reason, and this the first signal
            self._closing.hurry(0.0 if self._asked_to_close else closing_s(timeout))
        self._asked_to_close = True

    def pause(self, *, intake: bool = False) -> None:
        """Starts no more jobs until `resume`. What runs goes on, and what waits may expire.

        Args:
            intake: Let no jobs in either: submits wait, or are refused.
        """
        self._open().pause(intake=intake)

    def resume(self) -> None:
        """Goes on after `pause`."""
        self._here().resume()

    async def drain(self) -> None:
        """Waits until no accepted job is unfinished. The pool stays open."""
        await self._here().quiet.drained()

    def scale(self, change: int) -> int:
        """So many workers more, or fewer if negative, between the two bounds.

        Returns:
            How many there should be now. Those that are too many leave after their job.
        """
        if isinstance(change, bool) or not isinstance(change, int):
            raise MisuseError(f"change is {change!r}", hint="give a whole number, such as 2 or -2")
        return self._open().crew.scale(change)

    def resize(self, workers_min: int, workers_max: int) -> None:
        """Changes the bounds of the number of workers.

        Raises:
            MisuseError: They are no bounds.
        """
        self.reconfigure(workers_min=workers_min, workers_max=workers_max)

    def restart_workers(self) -> None:
        """Has every worker leave after its job, and new ones, with new threads, come."""
        self._open().crew.restart()

    def reconfigure(self, **changes: Unpack[SettingChanges]) -> PoolSettings:
        """Changes settings while the pool runs: all of them, or none if one is wrong.

        A smaller queue refuses new jobs and evicts none. What was used of a rate limit counts
        against the new one. Options of jobs already submitted stay.

        Raises:
            MisuseError: A setting is unknown or wrong; nothing was changed.
        """
        engine = self._open()
        settings = self._settings.changed(**changes)
        engine.watch.check(settings.memory)
        engine.gates.bind(settings)
        self._settings = settings
        self._terms = Terms(settings.job)
        engine.change(settings)
        return settings

    def cancel(self, *, key: Hashable = ALL_KEYS) -> int:
        """Cancels all jobs, or all of one key, whether they wait or run.

        Args:
            key: `None` for the jobs without a key.

        Returns:
            How many waiting jobs were withdrawn and running ones asked to end.
        """
        engine = self._here()
        return sum(job.cancel() for job in engine.unfinished() if key in (ALL_KEYS, job.key))

    def purge(self) -> int:
        """Cancels all jobs that wait; what runs goes on. Returns how many there were."""
        engine = self._here()
        waiting = [job for job in engine.unfinished() if job.state is not JobState.RUNNING]
        return sum(job.cancel() for job in waiting)

    def reset_breakers(self, *, key: Hashable = ALL_KEYS) -> None:
        """Closes the pool's breaker and those of all keys, or that of one key only.

        Args:
            key: `None` for the breaker of the jobs without a key.
        """
        engine = self._here()
        engine.gates.reset(key)
        engine.dispatch.release()

    @property
    def dead_letters(self) -> DeadLetters:
        """The jobs that failed for good, for looking and purging."""
        return self.engine.books.dead

    async def reprocess(self, *ids: int) -> list[Job[Any]]:
        """Submits dead letters anew, by their number or all of them, and waits for room.

        Each leaves the dead letters when its new job is accepted. What another call submits
        already, and what is purged meanwhile, is left out.

        Raises:
            MisuseError: There is no such dead letter, and nothing was submitted; or one has
                become too large for the queue.
        """
        return await reprocess(self._open(), *ids)

    def outcomes(
        self, *, buffer: int = 1000, slow: Slow = "drop oldest", retries: bool = False
    ) -> OutcomeStream:
        """Outcomes as they come from now on, as an async iterator.

        Args:
            buffer: Outcomes that are kept for a reader that is behind.
            slow: What happens then: `drop oldest` or `drop newest` outcomes, counted in `missed`,
                or `wait`: no job starts until the reader has caught up.
            retries: Also those of attempts that are followed by another one.

        Raises:
            MisuseError: The buffer is none, or there is no such policy.
        """
        return self._open().books.streams.open(buffer, slow, retries=retries)

    def ledger(self) -> Ledger:
        """Every accepted job, counted in exactly one place.

        May be asked in any thread, as may `numbers`, `health` and `breakers`: there it waits for
        a turn of the pool's loop.

        Raises:
            UnavailableError: The loop gave another thread no answer for 5 seconds: it is blocked.
        """
        return self._looked_over().ledger()

    def numbers(self) -> Numbers:
        """What the pool is doing and has done; from any thread, as `ledger`."""
        return self._looked_over().numbers()

    def health(self) -> Health:
        """How it is doing, with reasons that heal by themselves; from any thread, as `ledger`."""
        return self._looked_over().health()

    def breakers(self) -> tuple[BreakerStanding, ...]:
        """How the pool's breaker stands, if it has one, and every key's that is not closed.

        From any thread, as `ledger`.
        """
        return self._looked_over().breakers()

    def _started(self) -> Engine:
        return self.engine

    def _looked_over(self) -> Checkup:
        if self._checkup is None:
            self._checkup = Checkup(self.engine)
        return self._checkup

    def _state(self) -> str:
        if self._engine is None:
            return "not started"
        if self._closing is not None:
            return "closed" if self._closing.is_over else "closing"
        if self._engine.closed:  # its loop has ended
            return "closed"
        return "paused" if self._engine.paused else "open"

    def _open(self) -> Engine:
        """The engine, for what a pool does only as long as it is open."""
        engine = self._here()
        if self._closing is not None or engine.closed:
            raise PoolClosedError(f"pool {self._name} is {self._state()}", hint="make a new one")
        return engine
