"""What a store has to know of jobs, in a few lines of Python: the machine compares them."""

from dataclasses import dataclass, field

from mailrace.queue import ClaimedJob, JobState, NewJob, Step
from mailrace.queue.jobs import DEATHS_MAX, Finished, Lane
from mailrace.queue.states import FINAL, REVIVABLE, WAITING, after

GATED = "gated"
QUEUE_MAX = 3
KEY_MAX = 1
_CALLED_OFF = {Step.RETRY, Step.SNOOZE, Step.RELEASE, Step.DIE}
_NOT_COUNTED = {Step.RELEASE, Step.SNOOZE, Step.DIE}


@dataclass(slots=True)
class Job:
    """A job; `attempt` is None while the port does not say what it is."""

    id: int
    new: NewJob
    state: JobState
    run_at_ms: int
    expires_ms: int | None
    attempt: int | None = 0
    deaths: int = 0
    lease: int = 0
    holder: int = 0
    begun: bool = False
    asked: bool = False

    @property
    def flow(self) -> tuple[str, str]:
        return (self.new.queue, self.new.tenant)

    @property
    def waits(self) -> bool:
        return self.state in WAITING

    def step(self, step: Step) -> None:
        self.state = after(self.state, step)

    def has_expired(self, now_ms: int) -> bool:
        return self.expires_ms is not None and self.expires_ms <= now_ms


@dataclass(slots=True)
class Model:
    """All jobs, keys and processes; every method is one call of the port.

    Attributes:
        notes: Whether the store keeps what `begin` notes.
    """

    notes: bool
    jobs: dict[int, Job] = field(default_factory=dict)
    keys: dict[tuple[str, str], int] = field(default_factory=dict)
    paused: set[str] = field(default_factory=set)
    lease: int = 0

    def enqueue(self, new: NewJob, job_id: int, now_ms: int) -> set[int]:
        """Adds the job unless others stand in its way, which it answers."""
        there = {
            job.id
            for job in self.jobs.values()
            if new.unique is not None
            and (job.new.kind, job.new.unique) == (new.kind, new.unique)
            and job.state not in FINAL
        }
        if (key := (new.kind, new.idempotency or "")) in self.keys and new.idempotency:
            there.add(self.keys[key])
        if there:
            return there
        delay_ms, expires_ms = new.delay_ms or 0, new.expires_in_ms
        self.jobs[job_id] = Job(
            job_id,
            new,
            JobState.SCHEDULED if delay_ms > 0 else JobState.AVAILABLE,
            now_ms + delay_ms,
            None if expires_ms is None else now_ms + expires_ms,
        )
        if new.idempotency:
            self.keys[key] = job_id
        return set()

    def due(self, flow: tuple[str, str], now_ms: int) -> list[Job]:
        """Jobs of the flow that a claim may take, whether they have expired or not."""
        if flow[0] in self.paused:
            return []
        return [
            job
            for job in self.jobs.values()
            if job.flow == flow and job.waits and job.run_at_ms <= now_ms
        ]

    def running(self, queue: str) -> list[Job]:
        return [
            job
            for job in self.jobs.values()
            if job.state is JobState.RUNNING and job.new.queue == queue
        ]

    def has_room(self, job: Job) -> bool:
        """Whether the rules of the gated queue let this one run as well."""
        running = self.running(GATED)
        same = [one for one in running if one.new.key == job.new.key]
        return len(running) < QUEUE_MAX and (job.new.key is None or len(same) < KEY_MAX)

    def claim(self, claimed: ClaimedJob, process_id: int) -> None:
        job = self.jobs[claimed.id]
        job.step(Step.CLAIM)
        assert job.attempt is None or claimed.attempt == job.attempt + 1
        assert claimed.deaths == job.deaths
        assert claimed.once == (job.new.lane is Lane.CAMPAIGN)
        job.attempt, job.lease, job.holder, job.begun = (
            claimed.attempt, claimed.lease, process_id, False,
        )  # fmt: skip

    def held(self, process_id: int) -> list[Job]:
        return [
            job
            for job in self.jobs.values()
            if job.state is JobState.RUNNING and job.holder == process_id
        ]

    def finish(self, record: Finished, now_ms: int) -> bool:
        """Whether the record is written: only while its claim holds."""
        job = self.jobs.get(record.id)
        if job is None or job.state is not JobState.RUNNING or job.lease != record.lease:
            return False
        if job.asked and record.step in _CALLED_OFF:
            job.deaths += record.step is Step.DIE
            job.attempt = None
            job.step(Step.CANCEL)
        else:
            self._end(job, record, now_ms)
        job.asked = False
        return True

    def _end(self, job: Job, record: Finished, now_ms: int) -> None:
        job.step(record.step)
        job.deaths += record.step is Step.DIE
        if record.step in _NOT_COUNTED and job.attempt is not None:
            job.attempt -= 1
        if record.step in {Step.RETRY, Step.SNOOZE}:
            job.run_at_ms = now_ms + (record.delay_ms or 0)
        if record.step is Step.DIE and job.deaths >= DEATHS_MAX:
            job.state = JobState.FAILED

    def rest(self, job: Job, *, known: bool) -> Step:
        """What a rescue does with a job that no record tells of."""
        once = job.new.lane is Lane.CAMPAIGN and (job.begun or not self.notes)
        return Step.LOSE if once and not known else Step.RELEASE

    def expiring(self, now_ms: int) -> list[Job]:
        return [job for job in self.jobs.values() if job.waits and job.has_expired(now_ms)]

    def revivable(self, job: Job) -> bool:
        others = {
            (one.new.kind, one.new.unique) for one in self.jobs.values() if one.state not in FINAL
        }
        free = job.new.unique is None or (job.new.kind, job.new.unique) not in others
        return job.state in REVIVABLE and free

    def states(self) -> dict[int, JobState]:
        return {job.id: job.state for job in self.jobs.values()}

    def counts(
        self, *, queue: str | None = None, batch_id: int | None = None
    ) -> dict[JobState, int]:
        found = [
            job.state
            for job in self.jobs.values()
            if (queue is None or job.new.queue == queue)
            and (batch_id is None or job.new.batch_id == batch_id)
        ]
        return {state: found.count(state) for state in found}
