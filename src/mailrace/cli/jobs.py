"""`mailrace jobs`: looking at jobs."""

from collections.abc import Awaitable, Callable

import msgspec

from mailrace.cli.exits import DONE
from mailrace.cli.opening import on_store
from mailrace.cli.output import as_json, tell
from mailrace.cli.selection import Selection
from mailrace.cli.tables import table, time_of
from mailrace.cli.words import printable, span
from mailrace.errors import MisuseError
from mailrace.jobs import EndedCount, JobDetail, JobRow, Queue
from mailrace.queue.words import counted

_NOTHING = Selection()
_LIMIT_MAX = 10_000


def list_jobs(
    *,
    which: Selection = _NOTHING,
    limit: int = 50,
    before: int | None = None,
    store: str | None = None,
    json: bool = False,
) -> int:
    """Lists jobs of all states, the newest first.

    Args:
        limit: At most so many, up to 10000.
        before: Go on behind this job: the last one of the page before.
        store: Where they are kept, by default sqlite:///mailrace.db.
        json: Print one JSON document instead of text.
    """

    async def look(queue: Queue) -> list[JobRow]:
        where = await which.filter(queue)
        return await queue.find(where, limit=limit, before_id=before)

    return _listed(look, limit, store, json=json)


def dead(
    *,
    which: Selection = _NOTHING,
    limit: int = 50,
    before: int | None = None,
    store: str | None = None,
    json: bool = False,
) -> int:
    """Lists the dead letters: jobs that ended without being done, with the reason.

    Args:
        limit: At most so many, up to 10000.
        before: Go on behind this job: the last one of the page before.
        store: Where they are kept, by default sqlite:///mailrace.db.
        json: Print one JSON document instead of text.
    """

    async def look(queue: Queue) -> list[JobRow]:
        where = await which.filter(queue)
        return await queue.dead_letters(where, limit=limit, before_id=before)

    return _listed(look, limit, store, json=json)


def stats(*, which: Selection = _NOTHING, store: str | None = None, json: bool = False) -> int:
    """Counts the dead letters by state, queue, kind and reason, the largest group first.

    Args:
        store: Where they are kept, by default sqlite:///mailrace.db.
        json: Print one JSON document instead of text.
    """

    async def look(queue: Queue) -> list[EndedCount]:
        return await queue.dead_letter_counts(await which.filter(queue))

    found = on_store(store, look)
    if json:
        tell(as_json(found))
    else:
        tell(_groups(found) if found else "no dead letters")
    return DONE


def show(job: int, /, *, store: str | None = None, json: bool = False) -> int:
    """Shows all that is known of a job: payload, result, and what became of its attempts.

    Args:
        job: Its number.
        store: Where it is kept, by default sqlite:///mailrace.db.
        json: Print one JSON document instead of text.
    """
    found = on_store(store, lambda queue: queue.detail(job))
    if found is None:
        raise MisuseError(f"there is no job {job}", hint="it may have been removed with its age")
    tell(as_json(found) if json else "\n".join(_detail_lines(found)))
    return DONE


def _listed(
    look: Callable[[Queue], Awaitable[list[JobRow]]], limit: int, store: str | None, *, json: bool
) -> int:
    if not 1 <= limit <= _LIMIT_MAX:
        raise MisuseError(f"--limit is {limit}", hint=f"give 1 to {_LIMIT_MAX}")
    rows = on_store(store, look)
    if json:
        tell(as_json(rows))
        return DONE
    tell(_rows(rows) if rows else "no such jobs")
    if len(rows) == limit:
        tell(f"there may be more: --before {rows[-1].id}")
    return DONE


def _rows(rows: list[JobRow]) -> str:
    return table(
        ["job", "state", "kind", "queue", "attempt", "when", "why"],
        [
            (
                str(row.id),
                row.state,
                row.kind,
                row.queue,
                row.attempt,
                time_of(row.ended_ms if row.ended_ms is not None else row.run_at_ms),
                _why(row.category, row.reason, row.detail),
            )
            for row in rows
        ],
        right={"job", "attempt"},
        ends_in_text=True,
    )


def _groups(groups: list[EndedCount]) -> str:
    return table(
        ["jobs", "state", "queue", "kind", "category", "reason", "first", "last"],
        [
            (
                group.jobs,
                group.state,
                group.queue,
                group.kind,
                group.category,
                group.reason,
                time_of(group.first_ms),
                time_of(group.last_ms),
            )
            for group in groups
        ],
        right={"jobs"},
    )


def _detail_lines(detail: JobDetail) -> list[str]:
    row = detail.row
    facts = {
        "kind": row.kind,
        "queue": row.queue,
        "tenant": row.tenant,
        "priority": row.priority,
        "key": row.key,
        "batch": row.batch_id,
        "tags": ", ".join(row.tags),
        "lane": row.lane,
        "attempts": _attempts(row),
        "process": row.process_id,
        "created": time_of(row.created_ms),
        "not before": time_of(row.run_at_ms),
        "not after": None if row.expires_ms is None else time_of(row.expires_ms),
        "ended": None if row.ended_ms is None else _ended(row),
        "why": _why(row.category, row.reason, row.detail),
    }
    lines = [f"job {row.id}: {row.state}"]
    lines += [
        f"  {name:<11} {printable(str(value))}"
        for name, value in facts.items()
        if value not in {None, ""}
    ]
    lines.append(f"  {'payload':<11} {_one_line(detail.payload)}")
    if detail.result is not None:
        lines.append(f"  {'result':<11} {_one_line(detail.result)}")
    if detail.attempts:
        lines.append("  attempts that did not end well:")
    lines += [
        f"    {time_of(one.at_ms)}  {one.attempt:>3}  {one.step:<8}"
        f"  {_why(one.category, one.reason, one.detail)}"
        for one in detail.attempts
    ]
    return lines


def _attempts(row: JobRow) -> str:
    text = f"{row.attempt}" + (f" of {row.attempts}" if row.attempts is not None else "")
    if row.deaths:
        text += f", and {counted(row.deaths, 'death')} of a worker"
    if row.snoozes:
        text += f", put off {counted(row.snoozes, 'time')}"
    return text


def _ended(row: JobRow) -> str:
    assert row.ended_ms is not None
    return f"{time_of(row.ended_ms)}, {span((row.ended_ms - row.created_ms) / 1000)} after it came"


def _why(category: str, reason: str, detail: str) -> str:
    """What is known of an error, nothing of it twice."""
    text = detail if detail.startswith(reason) else f"{reason} {detail}"
    return printable(f"[{category}] {text}" if category else text)


def _one_line(value: msgspec.Raw) -> str:
    return printable(bytes(value).decode(errors="replace"))
