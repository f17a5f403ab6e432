"""The store under any order of calls by several processes, compared with a model of it."""

import asyncio
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mailrace.errors import ConflictError
from mailrace.queue import ClaimedJob, JobState, Step
from mailrace.queue.jobs import Finished
from mailrace.queue.states import after
from tests.queue.houses import AttemptRow, SqliteHouse, ended, new
from tests.support.clock import VirtualClock

KEYS = [f"k{number}" for number in range(12)]
ENDS = [Step.COMPLETE, Step.RETRY, Step.FAIL, Step.LOSE, Step.RELEASE]


class Job:
    """What the model knows of a job."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.state = JobState.AVAILABLE
        self.attempt = 0
        self.lease = 0
        self.holder = 0
        self.due_ms = 0

    def step(self, step: Step) -> None:
        self.state = after(self.state, step)


class StoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = VirtualClock()
        self.house = SqliteHouse(Path(self.folder.name), self.clock)
        self.stores = [self.house.open() for _ in range(2)]
        opened = self.loop.run_until_complete(self.stores[0].open_batch("b", "kind", b"{}"))
        self.batch_id = opened.id
        self.jobs: dict[str, Job] = {}
        self.rows: list[AttemptRow] = []
        self.claims: list[ClaimedJob] = []
        self.processes: dict[int, int] = {}
        self.gone: list[int] = []

    def teardown(self) -> None:
        self.loop.run_until_complete(self.house.close())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        self.folder.cleanup()

    def now_ms(self) -> int:
        return int(self.clock.unix_s() * 1000)

    @rule(keys=st.lists(st.sampled_from(KEYS), max_size=6), side=st.integers(0, 1))
    def enqueue(self, keys: list[str], side: int) -> None:
        added = self.loop.run_until_complete(self.stores[side].enqueue(self.batch_id, new(*keys)))
        fresh = [key for key in dict.fromkeys(keys) if key not in self.jobs]
        for key in fresh:
            self.jobs[key] = Job(len(self.jobs))
        assert added == len(fresh)

    @rule(side=st.integers(0, 1))
    def register(self, side: int) -> None:
        process_id = self.loop.run_until_complete(self.stores[side].register("j", 30))
        assert process_id not in {*self.processes, *self.gone}
        self.processes[process_id] = self.now_ms() + 30_000

    @precondition(lambda self: self.processes)
    @rule(data=st.data(), limit=st.integers(1, 5), side=st.integers(0, 1))
    def claim(self, data: st.DataObject, limit: int, side: int) -> None:
        process_id = data.draw(st.sampled_from(sorted(self.processes)))
        claimed = self.loop.run_until_complete(
            self.stores[side].claim(process_id, self.batch_id, limit)
        )
        waiting = [job for job in self.jobs.values() if job.state is JobState.RETRYABLE]
        due = sorted(
            (job for job in waiting if job.due_ms <= self.now_ms()), key=lambda j: j.due_ms
        )
        if len({job.due_ms for job in due}) == len(due) or len(due) <= limit:
            for job in due[:limit]:
                job.step(Step.STAGE)
        else:  # which of several that are due at once come first is the store's choice
            states = self.house.states(self.batch_id)
            staged = {job.id for job in claimed}
            for key, job in self.jobs.items():
                moved = states[key] is not JobState.RETRYABLE
                if job in due and moved:
                    job.step(Step.STAGE)
            assert len(staged) <= limit
        free = sorted(
            (job for job in self.jobs.values() if job.state is JobState.AVAILABLE),
            key=lambda job: job.number,
        )
        assert len(claimed) == min(limit, len(free))
        known = {key: job for key, job in self.jobs.items() if job in free[:limit]}
        for one, (key, job) in zip(
            claimed, sorted(known.items(), key=lambda item: item[1].number), strict=True
        ):
            assert one.payload == new(key)[0].payload
            assert one.attempt == job.attempt + 1
            assert all(one.lease > other.lease for other in self.claims)
            job.step(Step.CLAIM)
            job.attempt, job.lease, job.holder = one.attempt, one.lease, process_id
        self.claims += claimed

    @precondition(lambda self: self.gone)
    @rule(data=st.data(), limit=st.integers(1, 5))
    def claim_of_the_dead(self, data: st.DataObject, limit: int) -> None:
        process_id = data.draw(st.sampled_from(self.gone))
        try:
            self.loop.run_until_complete(self.stores[0].claim(process_id, self.batch_id, limit))
        except ConflictError:
            return
        raise AssertionError("a process that is gone may claim")

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), steps=st.lists(st.sampled_from(ENDS), min_size=1, max_size=4))
    def finish(self, data: st.DataObject, steps: list[Step]) -> None:
        """Of claims old and new alike: most of the old ones are zombies by now."""
        delay_ms = data.draw(st.integers(0, 20_000))
        records = [
            record
            for step in steps
            for record in ended(
                [data.draw(st.sampled_from(self.claims))],
                step,
                run_at_ms=self.now_ms() + delay_ms if step is Step.RETRY else None,
                at_ms=self.now_ms(),
            )
        ]
        refused = self.loop.run_until_complete(self.stores[0].finish(records))
        assert refused == len(records) - sum(map(self.write, records))

    def write(self, record: Finished) -> bool:
        key, job = next((k, j) for k, j in self.jobs.items() if self.id_of(k) == record.id)
        if job.state is not JobState.RUNNING or job.lease != record.lease:
            return False
        job.step(record.step)
        if record.step is Step.RELEASE:
            job.attempt -= 1
        else:
            self.rows.append(AttemptRow(key, record.lease, job.attempt, record.step.value))
        job.due_ms = record.run_at_ms or 0
        return True

    def id_of(self, key: str) -> int:
        payload = new(key)[0].payload
        return next((one.id for one in self.claims if one.payload == payload), -1)

    @precondition(lambda self: self.processes)
    @rule(data=st.data(), stale=st.booleans(), lose=st.booleans())
    def rescue(self, data: st.DataObject, stale: bool, lose: bool) -> None:
        process_id = data.draw(st.sampled_from(sorted(self.processes)))
        rows = self.loop.run_until_complete(self.stores[1].processes())
        assert {row.id: row.expires_ms for row in rows} == self.processes
        row = next(row for row in rows if row.id == process_id)
        if stale:
            self.clock.move_to(self.clock.monotonic_s() + 0.001)
            assert self.stores[0].renewer(process_id, 30)()
            self.processes[process_id] = self.now_ms() + 30_000
        held = [one for one in self.claims if self.holds(process_id, one)]
        known = held[: data.draw(st.integers(0, 2))]
        step = Step.LOSE if lose else Step.RELEASE
        rest = Finished(0, 0, step, after(JobState.RUNNING, step), at_ms=self.now_ms())
        records = ended(known, at_ms=self.now_ms())
        answer = self.loop.run_until_complete(self.stores[1].rescue(row, records, rest=rest))
        if stale:
            assert answer is None
            return
        assert all(map(self.write, records))
        others = [one for one in held if one not in known]
        assert answer == len(others)
        assert all(map(self.write, ended(others, step, at_ms=self.now_ms())))
        self.gone.append(process_id)
        del self.processes[process_id]

    def holds(self, process_id: int, one: ClaimedJob) -> bool:
        return any(
            job.lease == one.lease
            and self.id_of(key) == one.id
            and (job.holder, job.state) == (process_id, JobState.RUNNING)
            for key, job in self.jobs.items()
        )

    @precondition(lambda self: self.processes)
    @rule(data=st.data())
    def retire(self, data: st.DataObject) -> None:
        process_id = data.draw(st.sampled_from(sorted(self.processes)))
        gone = self.loop.run_until_complete(self.stores[0].retire(process_id))
        assert gone == (not any(self.holds(process_id, one) for one in self.claims))
        if gone:
            self.gone.append(process_id)
            del self.processes[process_id]

    @rule()
    def resend(self) -> None:
        uncertain = [job for job in self.jobs.values() if job.state is JobState.UNCERTAIN]
        again = self.loop.run_until_complete(self.stores[0].resend(self.batch_id))
        assert again == len(uncertain)
        for job in uncertain:
            job.step(Step.RESEND)
            job.attempt = 0  # a person asked for it: its attempts begin anew

    @rule(seconds=st.floats(0.001, 15))
    def wait(self, seconds: float) -> None:
        self.clock.move_to(self.clock.monotonic_s() + seconds)

    @invariant()
    def every_job_is_where_the_model_has_it(self) -> None:
        assert self.house.states(self.batch_id) == {k: j.state for k, j in self.jobs.items()}

    @invariant()
    def the_ledger_is_what_counting_gives(self) -> None:
        report = self.loop.run_until_complete(self.stores[1].report(self.batch_id))
        counted = self.house.select("SELECT state, count(*) FROM jobs GROUP BY state")
        assert {s: n for s, n in report.counts.items() if n} == {JobState(s): n for s, n in counted}
        assert report.accepted == len(self.jobs)
        waiting = [j.due_ms for j in self.jobs.values() if j.state is JobState.RETRYABLE]
        assert report.next_due_ms == min(waiting, default=None)

    @invariant()
    def attempts_are_kept_one_a_lease(self) -> None:
        assert sorted(self.house.attempts(self.batch_id)) == sorted(self.rows)


StoreMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestStoreMachine = StoreMachine.TestCase
