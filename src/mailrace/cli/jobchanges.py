"""`mailrace jobs`: deciding about jobs; more than one of them only with `--yes`."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import msgspec
from cyclopts import Parameter

from mailrace.cli.durations import seconds
from mailrace.cli.exits import DONE, FAILURES
from mailrace.cli.opening import on_store
from mailrace.cli.output import as_json, tell
from mailrace.cli.selection import Selection, narrowed
from mailrace.errors import MisuseError
from mailrace.jobs import JobFilter, JobState, Queue
from mailrace.queue.states import FINAL, REVIVABLE, WAITING
from mailrace.queue.words import counted

_PAGE: Final = 1000
_COUNTED_MAX: Final = 100_000
_ENDED: Final = tuple(state for state in JobState if state in FINAL)

_Change = Callable[[Queue, JobFilter], Awaitable[int]]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Decision:
    """What a change takes beside the jobs' numbers.

    Attributes:
        yes: Do it to more than one.
        store: Where they are kept, by default sqlite:///mailrace.db.
        json: Print one JSON document instead of text.
    """

    which: Selection = field(default_factory=Selection)
    yes: bool = False
    store: str | None = None
    json: bool = False


_UNDECIDED = Decision()


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints.

    Attributes:
        meant: How many jobs were meant.
        changed: To how many it was done.
        running: How many of those meant ran: these can only be asked to stop.
    """

    action: str
    meant: int
    changed: int
    running: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verb:
    """What is to be done: `retry`, its past tense, and the states that allow it."""

    name: str
    past: str
    states: tuple[JobState, ...]


def retry(*jobs: int, how: Decision = _UNDECIDED) -> int:
    """Has jobs that failed, were cancelled, expired or are uncertain run again, from the start.

    Args:
        jobs: Their numbers; or say which with options.
    """
    verb = _Verb(name="retry", past="retried", states=REVIVABLE)
    return _change(verb, Queue.retry, jobs, how)


def cancel(*jobs: int, how: Decision = _UNDECIDED) -> int:
    """Cancels waiting jobs, and has those that run stopped where they can be.

    Args:
        jobs: Their numbers; or say which with options.
    """
    verb = _Verb(name="cancel", past="cancelled", states=(*WAITING, JobState.RUNNING))
    return _change(verb, Queue.cancel, jobs, how)


def reschedule(*jobs: int, delay: str, how: Decision = _UNDECIDED) -> int:
    """Gives waiting jobs another time.

    Args:
        jobs: Their numbers; or say which with options.
        delay: How long from now: 10m, 2h; 0 for now.
    """
    delay_s = seconds(delay, "--delay")

    async def change(queue: Queue, where: JobFilter) -> int:
        return await queue.reschedule(where, delay_s)

    verb = _Verb(name="reschedule", past="rescheduled", states=WAITING)
    return _change(verb, change, jobs, how)


def delete(*jobs: int, how: Decision = _UNDECIDED) -> int:
    """Removes jobs that have ended, for good.

    Args:
        jobs: Their numbers; or say which with options.
    """
    verb = _Verb(name="delete", past="deleted", states=_ENDED)
    return _change(verb, Queue.delete, jobs, how)


def _change(verb: _Verb, change: _Change, jobs: tuple[int, ...], how: Decision) -> int:
    if not jobs and how.which.empty:
        raise MisuseError(
            f"it is not said which jobs are to be {verb.past}",
            hint="give their numbers, or options such as --queue and --state",
        )
    changed = on_store(how.store, partial(_on_queue, verb, change, jobs, how))
    tell(as_json(changed) if how.json else _sentence(verb, changed))
    return DONE if changed.changed == changed.meant else FAILURES


async def _on_queue(
    verb: _Verb, change: _Change, jobs: tuple[int, ...], how: Decision, queue: Queue
) -> Changed:
    where = narrowed(await how.which.filter(queue), verb.states, verb.past)
    if jobs:
        where = msgspec.structs.replace(where, ids=tuple(dict.fromkeys(jobs)))
        await _check_there(queue, verb, jobs)
    meant = await _count(queue, where)
    if meant > 1 and not how.yes:
        more = "more than " if meant > _COUNTED_MAX else ""
        raise MisuseError(
            f"{more}{counted(min(meant, _COUNTED_MAX), 'job')} would be {verb.past}, nothing was"
            " done yet",
            hint="add --yes to do it",
        )
    seen, changed, running = 0, 0, 0
    before: int | None = None
    while rows := await queue.find(where, limit=_PAGE, before_id=before):
        # By number, so that what comes meanwhile is not meant, and what stays is met only once.
        ids = tuple(row.id for row in rows)
        changed += await change(queue, msgspec.structs.replace(where, ids=ids))
        running += sum(row.state is JobState.RUNNING for row in rows)
        seen, before = seen + len(ids), ids[-1]
    return Changed(action=verb.name, meant=seen, changed=changed, running=running)


async def _count(queue: Queue, where: JobFilter) -> int:
    """How many there are, counted up to a bound and one more."""
    found, before = 0, None
    while found <= _COUNTED_MAX:
        rows = await queue.find(where, limit=_PAGE, before_id=before)
        found += len(rows)
        if len(rows) < _PAGE:
            break
        before = rows[-1].id
    return found


async def _check_there(queue: Queue, verb: _Verb, jobs: tuple[int, ...]) -> None:
    """Says of numbers that somebody gave what is wrong with them."""
    rows = {row.id: row for row in await queue.find(JobFilter(ids=jobs), limit=len(jobs))}
    for job in jobs:
        if job not in rows:
            raise MisuseError(f"there is no job {job}", hint="it may have been removed by its age")
        state = rows[job].state
        if state not in verb.states:
            raise MisuseError(
                f"job {job} is {state} and cannot be {verb.past}",
                hint=f"that takes a job that is {', '.join(verb.states)}",
            )


def _sentence(verb: _Verb, changed: Changed) -> str:
    text = f"{counted(changed.changed, 'job')} {verb.past}"
    left = changed.meant - changed.changed
    if changed.running:
        text += f"; {changed.running:,} of them running, and asked to stop"
    if left > 0:
        text += f"; {counted(left, 'job')} stayed as it was" if left == 1 else f"; {left:,} stayed"
    return text
