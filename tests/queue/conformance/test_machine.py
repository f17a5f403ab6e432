"""The store under any order of calls by several processes, compared with a model of it."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)  # fmt: skip

from mailrace.errors import ConflictError
from mailrace.queue import ClaimedJob, JobState, Step
from mailrace.queue.jobrows import JobFilter
from mailrace.queue.jobs import Lane
from mailrace.queue.queuerules import QueueRules
from mailrace.queue.states import FINAL
from tests.queue.conformance.model import GATED, KEY_MAX, QUEUE_MAX, Job, Model
from tests.queue.houses import (
    Estate,
    claim_of,
    counts,
    ended,
    enter,
    new,
    now_ms,
    process_row,
    some,
)  # fmt: skip

_T = TypeVar("_T")
ENDS = [
    Step.COMPLETE, Step.RETRY, Step.FAIL, Step.LOSE, Step.RELEASE, Step.SNOOZE, Step.DIE,
    Step.CANCEL, Step.EXPIRE,
]  # fmt: skip
PLAIN = "plain"
# Delays and waits are whole hundredths of a second, expiries never are: nothing expires at the
# very moment at which somebody looks.
DELAYS = st.sampled_from([None, None, 0, 500, 3000])
NEW = st.fixed_dictionaries(
    {
        "queue": st.sampled_from([PLAIN, GATED]),
        "tenant": st.sampled_from(["", "t"]),
        "delay_ms": DELAYS,
        "expires_in_ms": st.sampled_from([None, None, 2005]),
        "unique": st.sampled_from([None, None, "u", "v"]),
        "idempotency": st.sampled_from([None, None, *"abcdefgh"]),
        "key": st.sampled_from([None, "x", "y"]),
        "lane": st.sampled_from([None, Lane.CAMPAIGN]),
        "in_batch": st.booleans(),
    }
)
FLOWS = st.tuples(st.sampled_from([PLAIN, GATED]), st.sampled_from(["", "t"]))
SIDES = st.integers(0, 1)


class StoreMachine(RuleBasedStateMachine):
    def __init__(self, estate: Estate) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.house = estate.house()
        self.stores = [self.run(self.house.opened()) for _ in range(2)]
        self.batch_id = self.run(self.stores[0].open_batch("b", "kind", b"{}")).id
        rules = QueueRules(name=GATED, concurrency=QUEUE_MAX, concurrency_per_key=KEY_MAX)
        self.run(self.stores[0].set_queue(rules))
        self.model = Model(notes=self.stores[0].marks_begun)
        self.claims: list[ClaimedJob] = []
        self.processes: dict[int, int] = {}
        self.gone: list[int] = []
        self.lease = 0

    def teardown(self) -> None:
        self.run(self.house.close())
        self.run(self.loop.shutdown_default_executor())
        self.loop.close()

    def run(self, call: Coroutine[Any, Any, _T]) -> _T:
        return self.loop.run_until_complete(call)

    @property
    def now_ms(self) -> int:
        return now_ms(self.house)

    def draw_jobs(self, data: st.DataObject, most: int = 3) -> list[Job]:
        ids = sorted(self.model.jobs)
        drawn = data.draw(st.lists(st.sampled_from(ids), min_size=1, max_size=most, unique=True))
        return [self.model.jobs[job_id] for job_id in drawn]

    def draw_process(self, data: st.DataObject) -> int:
        return data.draw(st.sampled_from(sorted(self.processes)))

    # Jobs come in

    @rule(wanted=st.lists(NEW, max_size=5), side=SIDES)
    def enqueue(self, wanted: list[dict[str, Any]], side: int) -> None:
        jobs = []
        for fields in wanted:
            in_batch = fields["in_batch"]
            others = {name: value for name, value in fields.items() if name != "in_batch"}
            jobs += new("x", **others)
            if in_batch:
                jobs[-1:] = new("x", batch_id=self.batch_id, **others)
        answers = self.run(self.stores[side].enqueue(jobs))
        for answer, job in zip(answers, jobs, strict=True):
            newest = max(self.model.jobs, default=0)
            there = self.model.enqueue(job, answer.id, self.now_ms)
            assert answer.new == (not there)
            assert answer.id in there if there else answer.id > newest

    # Processes

    @rule(side=SIDES)
    def register(self, side: int) -> None:
        process_id = self.run(enter(self.stores[side]))
        assert process_id > max([*self.processes, *self.gone], default=0)
        self.processes[process_id] = self.now_ms + 30_000

    @precondition(lambda self: self.processes)
    @rule(data=st.data())
    def retire(self, data: st.DataObject) -> None:
        process_id = self.draw_process(data)
        gone = self.run(self.stores[0].retire(process_id))
        assert gone == (not self.model.held(process_id))
        if gone:
            self.leave(process_id)

    def leave(self, process_id: int) -> None:
        self.gone.append(process_id)
        del self.processes[process_id]

    @precondition(lambda self: self.processes)
    @rule(data=st.data(), stale=st.booleans(), known=st.booleans())
    def rescue(self, data: st.DataObject, stale: bool, known: bool) -> None:
        process_id = self.draw_process(data)
        row = self.run(process_row(self.stores[1], process_id))
        if stale:
            self.wait(1)
            renew = self.stores[0].renewer(process_id, 30)
            assert renew(row.vitals)
            self.processes[process_id] = self.now_ms + 30_000
        held = self.model.held(process_id)
        leases = {(job.id, job.lease) for job in held}
        mine = [one for one in self.claims if (one.id, one.lease) in leases]
        told = mine[: data.draw(st.integers(0, 2))]
        records = ended(told, data.draw(st.sampled_from(ENDS)), at_ms=self.now_ms)
        answer = self.run(self.stores[1].rescue(row, records, known=known))
        if stale:
            assert answer is None
            return
        assert all(self.model.finish(record, self.now_ms) for record in records)
        rest = [one for one in mine if one not in told]
        assert answer == len(rest)
        for one in rest:
            step = self.model.rest(self.model.jobs[one.id], known=known)
            assert self.model.finish(ended([one], step)[0], self.now_ms)
        self.leave(process_id)

    # Claims

    @precondition(lambda self: self.processes)
    @rule(data=st.data(), flow=FLOWS, limit=st.integers(1, 5), side=SIDES)
    def claim(self, data: st.DataObject, flow: tuple[str, str], limit: int, side: int) -> None:
        due = self.model.due(flow, self.now_ms)
        claimed = self.claimed(self.draw_process(data), flow, limit, side)
        if flow[0] == PLAIN:
            # Whether a claim passes over what has expired is the store's choice.
            fresh = [job for job in due if not job.has_expired(self.now_ms)]
            assert min(limit, len(fresh)) <= len(claimed) <= min(limit, len(due))

    def claimed(
        self, process_id: int, flow: tuple[str, str], limit: int, side: int
    ) -> list[ClaimedJob]:
        queue, tenant = flow
        due = {job.id for job in self.model.due(flow, self.now_ms)}
        claimed = self.run(
            claim_of(self.stores[side], process_id, limit, queue=queue, tenant=tenant)
        )
        assert len(claimed) <= limit
        for one in claimed:
            assert one.id in due
            assert one.lease > self.lease
            self.model.claim(one, process_id)
        self.lease = max([self.lease, *(one.lease for one in claimed)])
        self.claims += claimed
        return claimed

    @precondition(lambda self: self.processes)
    @rule(data=st.data(), side=SIDES)
    def claim_until_nothing_is_left(self, data: st.DataObject, side: int) -> None:
        """What then still waits in the gated queue has no room."""
        process_id = self.draw_process(data)
        for tenant in ("", "t"):
            misses = 0
            while misses < 3:
                claimed = self.claimed(process_id, (GATED, tenant), 2, side)
                misses = 0 if claimed else misses + 1
        for tenant in ("", "t"):
            for job in self.model.due((GATED, tenant), self.now_ms):
                assert job.has_expired(self.now_ms) or not self.model.has_room(job)

    @precondition(lambda self: self.gone)
    @rule(data=st.data(), flow=FLOWS)
    def claim_of_the_dead(self, data: st.DataObject, flow: tuple[str, str]) -> None:
        process_id = data.draw(st.sampled_from(self.gone))
        try:
            self.run(claim_of(self.stores[0], process_id, queue=flow[0], tenant=flow[1]))
        except ConflictError:
            return
        raise AssertionError("a process that is gone may claim")

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.claims))
        job = self.model.jobs.get(one.id)
        if job is not None and job.lease == one.lease and job.state is JobState.RUNNING:
            self.run(self.stores[0].begin(job.holder, [(one.id, one.lease)]))
            job.begun = True

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), steps=st.lists(st.sampled_from(ENDS), min_size=1, max_size=4), side=SIDES)
    def finish(self, data: st.DataObject, steps: list[Step], side: int) -> None:
        """Of claims old and new alike: most of the old ones are zombies by now."""
        newest = self.claims[-12:]
        records = [
            record
            for step in steps
            for record in ended(
                [data.draw(st.sampled_from(newest))],
                step,
                delay_ms=10 * data.draw(st.integers(0, 300)),
                at_ms=self.now_ms,
            )
        ]
        refused = self.run(self.stores[side].finish(records))
        written = [self.model.finish(record, self.now_ms) for record in records]
        assert refused == written.count(False)

    # People

    @precondition(lambda self: self.model.jobs)
    @rule(data=st.data(), side=SIDES)
    def cancel(self, data: st.DataObject, side: int) -> None:
        jobs = self.draw_jobs(data)
        where = JobFilter(ids=tuple(job.id for job in jobs))
        answer = self.run(self.stores[side].cancel(where))
        waiting = [job for job in jobs if job.waits]
        running = [job for job in jobs if job.state is JobState.RUNNING]
        asked_anew = [job for job in running if not job.asked]
        # Whether asking again counts is the store's choice.
        assert len(waiting) + len(asked_anew) <= answer <= len(waiting) + len(running)
        for job in waiting:
            job.step(Step.CANCEL)
        for job in running:
            job.asked = True

    @precondition(lambda self: self.model.jobs)
    @rule(data=st.data(), side=SIDES)
    def revive(self, data: st.DataObject, side: int) -> None:
        (job,) = self.draw_jobs(data, most=1)
        expected = self.model.revivable(job)
        answer = self.run(self.stores[side].revive(JobFilter(ids=(job.id,))))
        assert answer == expected
        if expected:
            self.begin_anew(job)

    @rule(side=SIDES)
    def resend(self, side: int) -> None:
        uncertain = [
            job
            for job in self.model.jobs.values()
            if job.state is JobState.UNCERTAIN and job.new.batch_id == self.batch_id
        ]
        # Two with one unique key: which of them is made available is the store's choice.
        keys = [job.new.unique for job in uncertain if job.new.unique is not None]
        if len(set(keys)) == len(keys):
            expected = [job for job in uncertain if self.model.revivable(job)]
            assert self.run(self.stores[side].resend(self.batch_id)) == len(expected)
            for job in expected:
                self.begin_anew(job)

    def begin_anew(self, job: Job) -> None:
        detail = self.run(self.stores[0].detail(job.id))
        assert detail is not None
        row = detail.row
        assert row.expires_ms is None or row.expires_ms > self.now_ms
        assert row.deaths in {0, job.deaths}
        assert row.run_at_ms <= self.now_ms
        job.step(Step.REVIVE)
        job.attempt, job.asked, job.run_at_ms = 0, False, row.run_at_ms
        job.expires_ms, job.deaths = row.expires_ms, row.deaths

    @precondition(lambda self: self.model.jobs)
    @rule(data=st.data(), delay_ms=st.sampled_from([0, 1000]), side=SIDES)
    def reschedule(self, data: st.DataObject, delay_ms: int, side: int) -> None:
        jobs = self.draw_jobs(data)
        where = JobFilter(ids=tuple(job.id for job in jobs))
        waiting = [job for job in jobs if job.waits]
        assert self.run(self.stores[side].reschedule(where, delay_ms)) == len(waiting)
        for job in waiting:
            job.step(Step.RESCHEDULE)
            job.run_at_ms = self.now_ms + delay_ms

    @precondition(lambda self: self.model.jobs)
    @rule(data=st.data(), side=SIDES)
    def delete(self, data: st.DataObject, side: int) -> None:
        jobs = self.draw_jobs(data, most=2)
        where = JobFilter(ids=tuple(job.id for job in jobs))
        final = [job for job in jobs if job.state in FINAL and not job.new.idempotency]
        if len(final) == len(jobs):  # what becomes of the key of such a job the port does not say
            assert self.run(self.stores[side].delete(where)) == len(final)
            for job in final:
                del self.model.jobs[job.id]

    @rule(queue=st.sampled_from([PLAIN, GATED]), side=SIDES)
    def pause_or_go_on(self, queue: str, side: int) -> None:
        self.model.paused ^= {queue}
        bounds: dict[str, Any] = {"concurrency": QUEUE_MAX, "concurrency_per_key": KEY_MAX}
        rules = QueueRules(
            name=queue,
            paused=queue in self.model.paused,
            **(bounds if queue == GATED else {}),
        )
        self.run(self.stores[side].set_queue(rules))

    # Time

    @rule(hundredths=st.integers(1, 400))
    def wait(self, hundredths: int) -> None:
        self.house.clock.move_to(self.house.clock.monotonic_s() + hundredths / 100)

    @rule(side=SIDES)
    def expire(self, side: int) -> None:
        expiring = self.model.expiring(self.now_ms)
        assert self.run(self.stores[side].expire()) == len(expiring)
        for job in expiring:
            job.step(Step.EXPIRE)

    @rule(side=SIDES)
    def tidy(self, side: int) -> None:
        self.run(self.stores[side].tidy())

    # What always holds

    @invariant()
    def every_job_is_where_the_model_has_it(self) -> None:
        assert self.house.everything() == self.model.states()

    @invariant()
    def the_counts_are_what_counting_gives(self) -> None:
        figures = self.run(self.stores[1].queue_figures())
        found = {row.queue: some(row.counts) for row in figures}
        for queue in (PLAIN, GATED):
            assert found.get(queue, {}) == self.model.counts(queue=queue)
        counted = self.run(counts(self.stores[0], self.batch_id))
        assert counted == self.model.counts(batch_id=self.batch_id)

    @invariant()
    def no_more_run_than_may(self) -> None:
        running = self.model.running(GATED)
        keys = [job.new.key for job in running if job.new.key is not None]
        assert len(running) <= QUEUE_MAX
        assert all(keys.count(key) <= KEY_MAX for key in keys)

    @invariant()
    def processes_are_those_that_came_and_did_not_go(self) -> None:
        rows = self.run(self.stores[1].processes())
        assert {row.id: row.expires_ms for row in rows} == self.processes

    @invariant()
    def requests_to_cancel_are_told(self) -> None:
        for process_id in self.processes:
            asked = {job.id for job in self.model.held(process_id) if job.asked}
            assert set(self.run(self.stores[0].cancels(process_id))) == asked


def test_the_store_does_what_the_model_does(estate: Estate) -> None:
    examples = {"sqlite": 40, "postgres": 15}[estate.name]

    class Machine(StoreMachine):
        def __init__(self) -> None:
            super().__init__(estate)

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
