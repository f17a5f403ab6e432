"""A pool on a virtual clock, with handlers that do what a test says and write down what they do."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal
from unittest import mock

from mailrace.pool import (
    Job,
    JobError,
    JobState,
    Outcome,
    OutcomeStream,
    Pool,
    PoolClosedError,
    PoolFullError,
    PoolSettings,
    RetryLaterError,
    current_job,
)
from mailrace.pool.states import FINAL, STEPS
from tests.support.clock import VirtualClock, settle

AnyJob = Job[Any]
Slow = Literal["drop oldest", "drop newest", "wait"]


class BoomError(Exception):
    """What handlers raise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """What a handler does in one attempt.

    Attributes:
        takes_s: Virtual seconds that it waits; 0.0 for one turn of the loop, `None` for none.
        ends: How it ends then.
        cancelled: What it does with a cancel: `obey`, `slow` (tidy up for a second first),
            `ignore`, or `return` a result in spite of it.
        nested: So many jobs of the same pool that it submits and waits for before all that.
        together: It does so in tasks of its own, all at once.
    """

    takes_s: float | None = None
    ends: Literal["return", "raise", "retry later", "cancel itself", "close pool"] = "return"
    cancelled: Literal["obey", "slow", "ignore", "return"] = "obey"
    nested: int = 0
    together: bool = False


@dataclass(slots=True, eq=False)
class Note:
    """What is known of one job from outside the pool.

    Attributes:
        acts: What its attempts do; the last one is repeated.
        asked_to_end: Somebody cancelled it.
        job: What the submit returned.
        made: The job as it was before it was accepted, if it was.
        casual: The submit was to run it itself.
        runs: Attempts that have begun.
        inside: Attempts that run now.
        lent: It waits for another job of the pool now, so many times.
        freed: It was told to end, and goes on without its place.
        told: How often its done callback was called.
    """

    acts: tuple[Act, ...] = (Act(),)
    asked_to_end: bool = False
    casual: bool = False
    job: AnyJob | None = None
    made: AnyJob | None = None
    runs: int = 0
    inside: int = 0
    lent: int = 0
    freed: bool = False
    told: int = 0
    returned: list[int] = field(default_factory=list)
    was_cancelled: int = 0

    def act(self) -> Act:
        return self.acts[min(self.runs, len(self.acts)) - 1]


@dataclass(frozen=True, slots=True)
class Start:
    """An attempt that began."""

    at_s: float
    key: object
    worker: int
    cost: int


class Follower:
    """Reads a stream of outcomes, and knows what has to be in it."""

    def __init__(self, stream: OutcomeStream, slow: Slow) -> None:
        self.stream = stream
        self.slow = slow
        self.expected: list[int] = []
        self.received: list[Outcome] = []
        self.closed = False

    async def read(self, most: int) -> None:
        """Takes outcomes until it would have to wait; that reader is then cancelled."""
        for _ in range(most):
            reader = asyncio.ensure_future(anext(self.stream))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            if not reader.done():
                reader.cancel()
            try:
                self.received.append(await reader)
            except (asyncio.CancelledError, StopAsyncIteration):
                return

    def check(self) -> None:
        kept = [outcome.job_id for outcome in (*self.received, *self.stream._outcomes)]
        assert len(kept) + self.stream.missed == len(self.expected)
        if self.slow == "wait":
            assert kept == self.expected
        else:
            assert len(self.stream._outcomes) <= self.stream._buffer
            left = iter(self.expected)
            assert all(job_id in left for job_id in kept)


class Workbench:
    """A pool and everything that it ought to be doing.

    Every job that is made while it watches is known to it, and every step of every job's state
    is checked against the table of steps.
    """

    def __init__(self, settings: PoolSettings | None = None, *, seed: int = 0) -> None:
        self.clock = VirtualClock()
        self.pool = Pool(settings, clock=self.clock, random=Random(seed))
        self.jobs: list[AnyJob] = []
        self.notes: list[Note] = []
        self.starts: list[Start] = []
        self.followers: list[Follower] = []
        self.submitters: dict[asyncio.Task[AnyJob], Note] = {}
        self.retried = 0
        self.closes = 0
        self.limits_since_s = 0.0
        self.crowded: list[Note] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Sees every step of every job."""
        slot: Any = vars(Job)["state"]

        class State:
            def __get__(_, job: AnyJob, owner: type[AnyJob]) -> object:  # noqa: N805
                return slot.__get__(job, owner)

            def __set__(_, job: AnyJob, state: JobState) -> None:  # noqa: N805
                self._stepped(job, getattr(job, "state", None), state)
                slot.__set__(job, state)

        with mock.patch.object(Job, "state", State()):
            yield

    # Handlers.

    async def handle(self, note: Note) -> int:
        """The one handler of all jobs."""
        job = current_job()
        note.runs += 1
        note.inside += 1
        assert note.inside == 1, "two attempts of one job at the same time"
        assert note.runs == job.attempts
        assert job.worker is not None
        note.freed = False
        note.casual = job.worker.casual
        self.starts.append(
            Start(self.clock.monotonic_s(), job.key, job.worker.number, job.terms.cost)
        )
        if not note.casual and self.working > self.pool.engine.crew.size:
            self.crowded.append(note)
        try:
            result = await self._act(note)
        except asyncio.CancelledError:
            note.was_cancelled += 1
            raise
        finally:
            note.inside -= 1
        note.returned.append(result)
        return result

    async def _act(self, note: Note) -> int:
        act = note.act()
        if act.nested and act.together:
            async with asyncio.TaskGroup() as group:
                for _ in range(act.nested):
                    group.create_task(self._nest(note))
        else:
            for _ in range(act.nested):
                await self._nest(note)
        if act.takes_s is not None and not await self._sleep(note, act, act.takes_s):
            return note.runs
        match act.ends:
            case "raise":
                raise BoomError(note.runs)
            case "retry later":
                raise RetryLaterError(2.0)
            case "cancel itself":
                raise asyncio.CancelledError
            case "close pool":
                await self._close(note)
        return note.runs

    async def _sleep(self, note: Note, act: Act, seconds: float) -> bool:
        """Lets time pass, and does with a cancel what the act says; false if it is to return."""
        until_s = self.clock.monotonic_s() + seconds
        while True:
            try:
                await self.clock.sleep_s(until_s - self.clock.monotonic_s())
            except asyncio.CancelledError:
                note.freed = True
                if act.cancelled == "return":
                    return False
                if act.cancelled == "slow":
                    await self.clock.sleep_s(1.0)
                if act.cancelled != "ignore":
                    raise
            else:
                return True

    async def _close(self, note: Note) -> None:
        self.closes += 1
        note.lent += 1
        try:
            await self.pool.close(1.0)
        except asyncio.CancelledError:
            note.freed = True
            raise
        finally:
            note.lent -= 1

    async def _nest(self, parent: Note) -> None:
        note = Note((Act(takes_s=1.0), Act()))
        self.notes.append(note)
        parent.lent += 1
        try:
            note.job = await self.pool.submit(self.handle, note)
            note.job.add_done_callback(self.told)
            await note.job
        except (JobError, PoolClosedError, PoolFullError):
            pass
        except asyncio.CancelledError:
            parent.freed = True
            raise
        finally:
            parent.lent -= 1

    # What is done to the pool.

    def submit(self, note: Note, **options: Any) -> asyncio.Task[AnyJob]:
        """Begins a submit in a task of its own."""
        self.notes.append(note)
        submitter = asyncio.ensure_future(self._submit(note, options))
        self.submitters[submitter] = note
        return submitter

    async def _submit(self, note: Note, options: dict[str, Any]) -> AnyJob:
        job = await self.pool.options(**options).submit(self.handle, note)
        note.job = job
        job.add_done_callback(self.told)
        return job

    def submit_nowait(self, note: Note, **options: Any) -> bool:
        """Submits at once; false if that was refused."""
        self.notes.append(note)
        try:
            note.job = self.pool.options(**options).submit_nowait(self.handle, note)
        except (PoolFullError, PoolClosedError):
            return False
        note.job.add_done_callback(self.told)
        return True

    def follow(self, buffer: int, slow: Slow) -> Follower:
        follower = Follower(self.pool.outcomes(buffer=buffer, slow=slow), slow)
        self.followers.append(follower)
        return follower

    def told(self, job: AnyJob) -> None:
        self.note_of(job).told += 1

    def note_of(self, job: AnyJob) -> Note:
        return next(note for note in self.notes if note.job is job)

    async def until(self, task: "asyncio.Task[Any]", *, most_s: float = 1e6) -> Any:
        """Lets virtual time pass until a task has ended, and gives its result."""
        await settle()
        until_s = self.clock.monotonic_s() + most_s
        while not task.done():
            next_s = self.clock.next_s
            assert next_s is not None, f"{task} waits for nothing"
            assert next_s < until_s, f"{task} takes for ever"
            self.clock.move_to(next_s)
            await settle()
        return await task

    # What is seen.

    @property
    def working(self) -> int:
        """Attempts that hold a place: those that wait for other jobs have lent theirs."""
        return sum(
            note.inside for note in self.notes if not (note.casual or note.lent or note.freed)
        )

    def accepted(self) -> list[AnyJob]:
        return [job for job in self.jobs if job.id]

    def counts(self) -> Counter[JobState]:
        return Counter(job.state for job in self.accepted())

    def worker_tasks(self) -> list["asyncio.Task[Any]"]:
        return [task for task in asyncio.all_tasks() if task.get_name().startswith("pool worker ")]

    def _stepped(self, job: AnyJob, before: JobState | None, state: JobState) -> None:
        if before is None:
            self.jobs.append(job)
            if job.args and isinstance(job.args[0], Note):
                job.args[0].made = job
            return
        assert job.id, f"{job} was never accepted"
        assert state in STEPS.get(before, ()), f"{job} must not step from {before} to {state}"
        self.retried += state is JobState.RETRYABLE
        if state in FINAL:
            for follower in self.followers:
                if not (follower.closed or follower.stream._ended):
                    follower.expected.append(job.id)
