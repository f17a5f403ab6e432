"""Why a queue does not move: sentences from what is known of it, without asking anybody."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from mailrace.queue.figures import QueueFigures
from mailrace.queue.flows import Flow
from mailrace.queue.jobrows import JobRow
from mailrace.queue.limits import LimitRow, limit_name
from mailrace.queue.processes import ProcessRow, ProcessState
from mailrace.queue.queuerules import QueueRules
from mailrace.queue.standing import works_on
from mailrace.queue.states import WAITING, JobState
from mailrace.queue.words import counted

# Those who work take slots ahead: so far off, the next one is no sign of standing still.
_NEXT_SLOT_MS: Final = 1000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of a queue.

    Attributes:
        figures: `None` where there never was a job in it.
        flows: Of the queue, those that are due and those that are not.
        processes: All that there are.
        limits: All that there are.
        waiting: A sample of its waiting jobs.
        running: A sample of its running jobs.
        now_ms: By the store's clock.
    """

    queue: str
    rules: QueueRules
    figures: QueueFigures | None
    flows: Sequence[Flow]
    processes: Sequence[ProcessRow]
    limits: Sequence[LimitRow]
    waiting: Sequence[JobRow]
    running: Sequence[JobRow]
    now_ms: int


def reasons(facts: Facts) -> list[str]:
    """What holds the queue back, the most telling first; never empty."""
    found = [sentence for reason in _REASONS for sentence in reason(facts)]
    return found or [_moves(facts)]


def _moves(facts: Facts) -> str:
    assert facts.figures is not None  # or there would be a reason
    workers = len(_workers(facts, ProcessState.WORKING))
    due = f"{counted(facts.figures.due, 'job')} due"
    return f"nothing holds it back: {due}, {counted(workers, 'process', 'processes')} at work on it"


def _held_by_hand(facts: Facts) -> Iterator[str]:
    if facts.rules.paused:
        yield "the queue is paused: nothing is taken from it until it is resumed"
    if facts.rules.draining:
        yield "the queue is draining: what is there is worked off, and nothing new is taken in"


def _nothing_due(facts: Facts) -> Iterator[str]:
    waiting = sum(_count(facts, state) for state in WAITING)
    running = _count(facts, JobState.RUNNING)
    if waiting == 0:
        rest = f", and {counted(running, 'job')} run" if running else ""
        yield f"no jobs wait in it{rest}"
    elif facts.figures is not None and facts.figures.due == 0:
        next_ms = [-flow.waited_ms for flow in facts.flows if flow.waited_ms < 0]
        when = f": the next one is in {min(next_ms) / 1000:.1f} seconds" if next_ms else ""
        what = (
            "its waiting job is not due"
            if waiting == 1
            else f"none of its {waiting:,} waiting jobs is due"
        )
        yield f"{what}{when}"


def _nobody(facts: Facts) -> Iterator[str]:
    alive = [row for row in facts.processes if not row.expired]
    mine = [row for row in alive if works_on(row, facts.queue)]
    if not mine:
        others = sorted({queue for row in alive for queue in row.queues})
        rest = f"; those that are work on {', '.join(others)}" if others else ""
        yield f"no process alive works on it{rest}"
        return
    for state, what in (
        (ProcessState.PAUSED, "paused"),
        (ProcessState.DRAINING, "draining"),
        (ProcessState.STARTING, "still starting"),
    ):
        if all(row.vitals.state is state for row in mine):
            yield f"every process that works on it is {what}"
    troubles = sorted({row.vitals.trouble for row in mine if row.vitals.trouble})
    if troubles and all(row.vitals.trouble for row in mine):
        yield f"every process that works on it has trouble: {'; '.join(troubles)}"


def _all_busy(facts: Facts) -> Iterator[str]:
    working = _workers(facts, ProcessState.WORKING)
    if working and all(row.vitals.in_hand >= row.concurrency > 0 for row in working):
        hands = sum(row.concurrency for row in working)
        yield (
            "every process that works on it has its hands full"
            f" ({hands} in {counted(len(working), 'process', 'processes')}): start more, or"
            " give them more concurrency"
        )


def _limits(facts: Facts) -> Iterator[str]:
    tenants = {flow.tenant for flow in facts.flows if flow.waited_ms >= 0}
    # Jobs that were claimed wait in front of the limit too.
    tenants |= {job.tenant for job in facts.running}
    names = {
        limit_name(limit, {"tenant": tenant}) for limit in facts.rules.limits for tenant in tenants
    }
    for limit in sorted(facts.limits, key=lambda limit: limit.name):
        wait_ms = limit.next_slot_ms - facts.now_ms
        if limit.name in names and wait_ms > _NEXT_SLOT_MS:
            slowed = f", slowed to {limit.pace:.0%} of it" if limit.pace < 1 else ""
            yield (
                f"the limit {limit.name!r} ({limit.rates}{slowed}) lets the next job go in"
                f" {wait_ms / 1000:.1f} seconds"
            )


def _concurrency(facts: Facts) -> Iterator[str]:
    running, most = _count(facts, JobState.RUNNING), facts.rules.concurrency
    if most is not None and running >= most:
        yield f"its concurrency is used up: {running} of {most} run"


def _keys(facts: Facts) -> Iterator[str]:
    most = facts.rules.concurrency_per_key
    if most is None:
        return
    running = Counter(job.key for job in facts.running if job.key is not None)
    for key, jobs in sorted(running.items()):
        waiting = sum(job.key == key for job in facts.waiting)
        if jobs >= most and waiting:
            held = counted(waiting, "job")
            yield f"the key {key!r} is used up ({jobs} of {most} run), and holds back {held}"


def _breakers(facts: Facts) -> Iterator[str]:
    mine = [row for row in facts.processes if not row.expired and works_on(row, facts.queue)]
    for kind in sorted({job.kind for job in facts.waiting}):
        open_in = sum(kind in row.vitals.breakers_open for row in mine)
        if open_in:
            yield (
                f"the breaker of the kind {kind!r} is open in {open_in} of"
                f" {counted(len(mine), 'process', 'processes')}: its jobs are put off"
            )


def _put_off(facts: Facts) -> Iterator[str]:
    later = [job for job in facts.waiting if job.snoozes and job.run_at_ms > facts.now_ms]
    if later:
        kinds = ", ".join(repr(kind) for kind in sorted({job.kind for job in later}))
        given = sorted({job.reason for job in later if job.reason})
        said = f" ({', '.join(given)})" if given else ""
        yield (
            f"put off by a worker{said}: {len(later)} of the {len(facts.waiting)} waiting jobs"
            f" looked at; a handler wanted that, or no process has a handler, or the keys,"
            f" for {kinds}"
        )


_REASONS: Final[tuple[Callable[[Facts], Iterator[str]], ...]] = (
    _held_by_hand,
    _nothing_due,
    _nobody,
    _all_busy,
    _limits,
    _concurrency,
    _keys,
    _breakers,
    _put_off,
)


def _count(facts: Facts, state: JobState) -> int:
    return 0 if facts.figures is None else facts.figures.counts[state]


def _workers(facts: Facts, state: ProcessState) -> list[ProcessRow]:
    return [
        row
        for row in facts.processes
        if not row.expired and works_on(row, facts.queue) and row.vitals.state is state
    ]
