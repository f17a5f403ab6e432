"""The jobs that wait in a pool, compared with a plain list of them."""

import itertools
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mailrace.pool.backlog import Backlog, FifoLane, KeyedLane
from mailrace.pool.job import Job
from mailrace.pool.options import JobOptions, Terms
from mailrace.pool.states import JobState

AnyJob = Job[Any]

LEVELS = (-9, -1, 0, 1, 9)
KEYS = ("a", "b", "c", None)
# No multiple of the steps of time below, so that no two priorities are ever level.
AGEINGS_S = (0.3137, 4.7113, 1000.0719)


class Incomparable:
    """A payload that must not be looked at."""

    def __hash__(self) -> int:
        raise AssertionError("a payload was hashed")

    def __eq__(self, other: object) -> bool:
        raise AssertionError("a payload was compared")

    def __lt__(self, other: object) -> bool:
        raise AssertionError("a payload was compared")


def waiting(number: int, *, level: int = 0, key: object = None, queued_s: float = 0.0) -> AnyJob:
    """A job as far as a backlog looks at it."""
    job: AnyJob = Job.__new__(Job)
    job.id = number
    job.state = JobState.AVAILABLE
    job.terms = Terms(JobOptions(priority=level, key=key))
    job.queued_s = queued_s
    job.args = (Incomparable(),)
    return job


def numbers(jobs: list[AnyJob]) -> list[int]:
    return [job.id for job in jobs]


def emptied(backlog: Backlog) -> list[AnyJob]:
    jobs = []
    while (job := backlog.pop()) is not None:
        jobs.append(job)
    return jobs


def withdraw(backlog: Backlog, job: AnyJob) -> None:
    backlog.withdrawn()
    job.state = JobState.CANCELLED
    backlog.tidy()


class BacklogMachine(RuleBasedStateMachine):
    """Pushes, pops, withdraws, holds and changes the rules, beside a list in order of arrival."""

    def __init__(self) -> None:
        super().__init__()
        self.ageing_s = AGEINGS_S[1]
        self.backlog = Backlog(ageing_s=self.ageing_s, keyed=False)
        self.keyed = False
        self.now_s = 0.0
        self.ids = itertools.count(1)
        self.jobs: list[AnyJob] = []
        self.held: set[object] = set()
        # For each key that had its turn in a priority: the keys that have waited since for theirs.
        self.owed: dict[tuple[int, object], set[object]] = {}

    @rule(
        level=st.sampled_from(LEVELS),
        key=st.sampled_from(KEYS),
        after_s=st.sampled_from((0.0, 0.0, 0.5, 7.0)),
    )
    def push(self, level: int, key: object, after_s: float) -> None:
        self.now_s += after_s
        job = waiting(next(self.ids), level=level, key=key, queued_s=self.now_s)
        self.jobs.append(job)
        self.backlog.push(job)

    @rule()
    def pop(self) -> None:
        candidates = self.candidates()
        seen = self.backlog.head()
        job = self.backlog.pop()
        if not any(candidates.values()):
            assert seen is None
            assert job is None
            return
        assert job is not None
        assert seen is job, "head and pop mean the same job"
        level, key = job.terms.level, job.terms.key
        assert job in candidates[level], "first in, first out inside a key"
        for others in candidates.values():
            if others:
                assert self.turn_s(job) <= max(map(self.turn_s, others))
        if self.keyed:
            self.had_its_turn(level, key, candidates[level])
        self.jobs.remove(job)
        self.forgive()

    def had_its_turn(self, level: int, key: object, candidates: list[AnyJob]) -> None:
        assert not self.owed.get((level, key)), "keys take turns"
        for (other_level, _), keys in self.owed.items():
            if other_level == level:
                keys.discard(key)
        self.owed[level, key] = {other.terms.key for other in candidates} - {key}

    def forgive(self) -> None:
        """Nothing is owed to a key that has no job, or may have none started."""
        candidates = self.candidates()
        for (level, _), keys in self.owed.items():
            keys &= {job.terms.key for job in candidates[level]}

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def withdraw_one(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.jobs))
        self.jobs.remove(job)
        withdraw(self.backlog, job)
        self.forgive()

    @precondition(lambda self: self.keyed)
    @rule(key=st.sampled_from(KEYS))
    def hold(self, key: object) -> None:
        self.held.add(key)
        self.backlog.hold(key)
        self.forgive()

    @rule(key=st.sampled_from(KEYS))
    def release(self, key: object) -> None:
        self.held.discard(key)
        self.backlog.release(key)

    @rule(keyed=st.booleans(), ageing_s=st.sampled_from(AGEINGS_S))
    def change(self, keyed: bool, ageing_s: float) -> None:
        if keyed != self.keyed:
            self.held.clear()
            self.owed.clear()
        self.keyed, self.ageing_s = keyed, ageing_s
        self.backlog.change(ageing_s=ageing_s, keyed=keyed)

    def turn_s(self, job: AnyJob) -> float:
        return job.queued_s - job.terms.level * self.ageing_s

    def candidates(self) -> dict[int, list[AnyJob]]:
        """By priority, the jobs of which one may be next."""
        firsts: dict[int, list[AnyJob]] = {level: [] for level in LEVELS}
        seen: set[tuple[int, object]] = set()
        for job in self.jobs:
            lane = job.terms.level, job.terms.key if self.keyed else None
            if lane not in seen and job.terms.key not in self.held:
                firsts[job.terms.level].append(job)
            seen.add(lane)
        return firsts

    @invariant()
    def holds_exactly_what_waits(self) -> None:
        assert len(self.backlog) == len(self.jobs)
        assert bool(self.backlog) == bool(self.jobs)
        listed = list(self.backlog.jobs())
        assert sorted(numbers(listed)) == numbers(self.jobs)
        assert [job.terms.level for job in listed] == sorted(
            (job.terms.level for job in self.jobs), reverse=True
        )

    @invariant()
    def knows_the_oldest_and_the_lowest(self) -> None:
        oldest, lowest = self.backlog.oldest(), self.backlog.lowest()
        if not self.jobs:
            assert oldest is None
            assert lowest is None
            return
        assert oldest is self.jobs[0]
        least = min(job.terms.level for job in self.jobs)
        assert lowest is [job for job in self.jobs if job.terms.level == least][-1]


TestBacklogMachine = BacklogMachine.TestCase
TestBacklogMachine.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


def test_inside_a_priority_the_first_in_is_the_first_out_and_payloads_are_never_compared() -> None:
    backlog = Backlog(ageing_s=30.0, keyed=False)
    for number in range(100):
        backlog.push(waiting(number, level=number % 2))
    odd, even = list(range(1, 100, 2)), list(range(0, 100, 2))
    assert numbers(emptied(backlog)) == odd + even


@given(
    ageing_s=st.floats(0.01, 100.0),
    step_s=st.floats(0.001, 10.0),
    low=st.integers(-9, 8),
    above=st.integers(1, 17),
    crowd=st.integers(1, 20),
)
def test_the_lowest_priority_waits_a_bounded_time_under_constant_load(
    ageing_s: float, step_s: float, low: int, above: int, crowd: int
) -> None:
    high = min(9, low + above)
    backlog = Backlog(ageing_s=ageing_s, keyed=False)
    for number in range(crowd):
        backlog.push(waiting(number, level=high))
    backlog.push(waiting(-1, level=low))
    bound_s = (high - low) * ageing_s
    # Everything that came before the bound may go first; nothing that comes later may.
    for step in range(1, min(int(bound_s / step_s), 3000) + crowd + 3):
        now_s = step * step_s
        backlog.push(waiting(step, level=high, queued_s=now_s))
        job = backlog.pop()
        assert job is not None
        if job.id == -1:
            break
        assert job.queued_s <= bound_s * (1 + 1e-9)
    else:
        assert bound_s / step_s > 3000, "it starved"


def test_a_higher_priority_goes_first_as_long_as_nobody_has_waited_too_long() -> None:
    backlog = Backlog(ageing_s=10.0, keyed=False)
    backlog.push(waiting(1, level=0, queued_s=0.0))
    backlog.push(waiting(2, level=1, queued_s=9.9))
    backlog.push(waiting(3, level=1, queued_s=10.1))
    assert numbers(emptied(backlog)) == [2, 1, 3]


def test_a_shorter_ageing_holds_for_those_that_wait_already() -> None:
    backlog = Backlog(ageing_s=100.0, keyed=False)
    backlog.push(waiting(1, level=0, queued_s=0.0))
    backlog.push(waiting(2, level=1, queued_s=9.0))
    head = backlog.head()
    assert head is not None
    assert head.id == 2
    backlog.change(ageing_s=1.0, keyed=False)
    assert numbers(emptied(backlog)) == [1, 2]


def test_keys_take_turns_however_many_jobs_one_of_them_has() -> None:
    backlog = Backlog(ageing_s=30.0, keyed=True)
    for number in range(6):
        backlog.push(waiting(number, key="greedy"))
    backlog.push(waiting(6, key="modest"))
    backlog.push(waiting(7, key="other"))
    backlog.push(waiting(8, key="modest"))
    assert numbers(emptied(backlog)) == [0, 6, 7, 1, 8, 2, 3, 4, 5]


def test_a_held_key_keeps_nobody_else_from_going_and_comes_back_where_it_was() -> None:
    backlog = Backlog(ageing_s=30.0, keyed=True)
    for number, key in enumerate("aabb"):
        backlog.push(waiting(number, key=key))
    backlog.hold("a")
    backlog.push(waiting(4, key="a", level=9))
    assert numbers(emptied(backlog)) == [2, 3]
    assert len(backlog) == 3
    oldest = backlog.oldest()
    assert oldest is not None
    assert oldest.id == 0
    backlog.release("a")
    assert numbers(emptied(backlog)) == [4, 0, 1]


def test_becoming_keyed_and_back_loses_nothing_and_keeps_the_order() -> None:
    backlog = Backlog(ageing_s=30.0, keyed=False)
    for number in range(9):
        backlog.push(waiting(number, key="abc"[number // 3], queued_s=float(number)))
    backlog.change(ageing_s=30.0, keyed=True)
    taken = [backlog.pop() for _ in range(3)]
    assert [job.id for job in taken if job] == [0, 3, 6]
    backlog.hold("b")
    backlog.change(ageing_s=30.0, keyed=False)
    assert numbers(emptied(backlog)) == [1, 2, 4, 5, 7, 8]
    assert len(backlog) == 0


def test_withdrawn_jobs_do_not_pile_up() -> None:
    for keyed in (False, True):
        backlog = Backlog(ageing_s=30.0, keyed=keyed)
        backlog.push(waiting(0, key="first"))  # what is withdrawn is never at the front
        backlog.hold("first")
        most = 0
        for number in range(1, 5000):
            job = waiting(number, key=number % 3, level=number % 2)
            backlog.push(job)
            withdraw(backlog, job)
            most = max(most, stored(backlog))
        assert len(backlog) == 1
        assert most < 100


def test_keys_that_are_gone_leave_nothing_behind() -> None:
    backlog = Backlog(ageing_s=30.0, keyed=True)
    for number in range(5000):
        backlog.push(waiting(number, key=number))
        backlog.pop()
    (lane,) = backlog._lanes.values()
    assert isinstance(lane, KeyedLane)
    assert len(lane._by_key) <= 1


def stored(backlog: Backlog) -> int:
    """The jobs in the backlog's hands, withdrawn ones included."""
    found = 0
    for lane in backlog._lanes.values():
        lanes = list(lane._by_key.values()) if isinstance(lane, KeyedLane) else [lane]
        found += sum(len(fifo.jobs_in_order) for fifo in lanes if isinstance(fifo, FifoLane))
    return found
