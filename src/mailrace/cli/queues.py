"""`mailrace queues`: what waits where, and what holds for it."""

from typing import Annotated

import msgspec
from cyclopts import Parameter

from mailrace.cli.exits import DONE
from mailrace.cli.limits import missing
from mailrace.cli.opening import on_store
from mailrace.cli.output import as_json, tell
from mailrace.cli.tables import table
from mailrace.cli.words import span
from mailrace.errors import MisuseError
from mailrace.jobs import JobState, Queue
from mailrace.queue.cluster import Cluster
from mailrace.queue.queuerules import QueueRules
from mailrace.queue.states import WAITING
from mailrace.queue.words import counted


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A queue: its counts, and its rules; what `--json` prints.

    Attributes:
        counts: Jobs by state, every state.
        due: Waiting jobs whose time has come.
        oldest_due_ms: How long the first of them has waited.
    """

    queue: str
    counts: dict[JobState, int]
    due: int
    oldest_due_ms: int
    rules: QueueRules


def queues(*, store: str | None = None, json: bool = False) -> int:
    """Shows every queue: its jobs by state, what is due, and what holds for it.

    Args:
        store: Where they are kept, by default sqlite:///mailrace.db.
        json: Print one JSON document instead of text.
    """
    found = on_store(store, _standings)
    if json:
        tell(as_json(found))
    else:
        tell(_table(found) if found else "no queues yet")
    return DONE


def pause(name: str, /, *, store: str | None = None, json: bool = False) -> int:
    """Has nothing more begun from a queue until it is resumed; what runs goes on.

    Args:
        name: The queue.
        store: Where it is kept, by default sqlite:///mailrace.db.
        json: Print one JSON document instead of text.
    """
    return _configured(name, {"paused": True}, store, json=json)


def resume(name: str, /, *, store: str | None = None, json: bool = False) -> int:
    """Ends pause and drain.

    Args:
        name: The queue.
        store: Where it is kept, by default sqlite:///mailrace.db.
        json: Print one JSON document instead of text.
    """
    return _configured(name, {"paused": False, "draining": False}, store, json=json)


def drain(name: str, /, *, store: str | None = None, json: bool = False) -> int:
    """Lets nothing more into a queue; what is there is worked off.

    Args:
        name: The queue.
        store: Where it is kept, by default sqlite:///mailrace.db.
        json: Print one JSON document instead of text.
    """
    return _configured(name, {"draining": True}, store, json=json)


def purge(name: str, /, *, yes: bool = False, store: str | None = None, json: bool = False) -> int:
    """Cancels everything that waits in a queue.

    Args:
        name: The queue.
        yes: Do it to more than one job.
        store: Where it is kept, by default sqlite:///mailrace.db.
        json: Print one JSON document instead of text.
    """

    async def purge_it(queue: Queue) -> int:
        figures = {one.queue: one.counts for one in await queue.store.queue_figures()}
        waiting = sum(figures.get(name, {}).get(state, 0) for state in WAITING)
        if waiting > 1 and not yes:
            raise MisuseError(
                f"{counted(waiting, 'job')} would be cancelled, nothing was done yet",
                hint="add --yes to do it",
            )
        return await queue.purge(name)

    cancelled = on_store(store, purge_it)
    if json:
        tell(as_json({"queue": name, "cancelled": cancelled}))
    else:
        tell(f"{counted(cancelled, 'job')} of {name} cancelled")
    return DONE


def why(name: str, /, *, store: str | None = None, json: bool = False) -> int:
    """Says why a queue does not move, or that nothing holds it back.

    Args:
        name: The queue.
        store: Where it is kept, by default sqlite:///mailrace.db.
        json: Print one JSON document instead of text.
    """
    reasons = on_store(store, lambda queue: Cluster(queue.store).why(name))
    tell(as_json({"queue": name, "reasons": reasons}) if json else "\n".join(reasons))
    return DONE


def set_queue(
    name: str,
    /,
    *,
    concurrency: str | None = None,
    per_key: str | None = None,
    limit: tuple[str, ...] = (),
    no_limits: Annotated[bool, Parameter(name="--no-limits")] = False,
    ageing: float | None = None,
    store: str | None = None,
    json: bool = False,
) -> int:
    """Changes what holds for a queue over all processes; what is not given stays.

    Args:
        name: The queue.
        concurrency: Jobs that run at the same time over all processes, at most; or none.
        per_key: The same for jobs with one key; or none.
        limit: A limit that all its jobs wait for; may be given again. {tenant} in it stands for
            the job's tenant.
        no_limits: Its jobs wait for no limit any more.
        ageing: A job that has waited so many seconds counts as one priority higher.
        store: Where it is kept, by default sqlite:///mailrace.db.
        json: Print one JSON document instead of text.
    """
    changes: dict[str, object] = {}
    if concurrency is not None:
        changes["concurrency"] = _bound(concurrency, "--concurrency")
    if per_key is not None:
        changes["concurrency_per_key"] = _bound(per_key, "--per-key")
    if limit and no_limits:
        raise MisuseError("--limit and --no-limits are both given", hint="give one of them")
    if limit or no_limits:
        changes["limits"] = limit
    if ageing is not None:
        changes["ageing_s"] = ageing
    if not changes:
        raise MisuseError("there is nothing to change", hint="try mailrace queues set --help")
    return _configured(name, changes, store, json=json)


def _bound(text: str, name: str) -> int | None:
    if text.lower() == "none":
        return None
    if not (text.isascii() and text.isdecimal() and int(text) >= 1):
        raise MisuseError(f"{name} is {text!r}", hint="give 1 or more, or none")
    return int(text)


def _configured(name: str, changes: dict[str, object], store: str | None, *, json: bool) -> int:
    async def change(queue: Queue) -> tuple[QueueRules, list[str]]:
        rules = await queue.configure(name, **changes)
        if not changes.get("limits"):
            return rules, []
        return rules, missing(rules.limits, [one.name for one in await queue.store.limits()])

    rules, lacking = on_store(store, change)
    if json:
        tell(as_json(rules))
        return DONE
    tell(f"{name}: {_rules(rules)}")
    for limit in lacking:
        tell(f"there is no limit {limit!r} yet: jobs will wait for it")
    return DONE


async def _standings(queue: Queue) -> list[Standing]:
    rules = {one.name: one for one in await queue.store.queue_rules()}
    figures = {one.queue: one for one in await queue.store.queue_figures()}
    found = []
    for name in sorted(rules.keys() | figures.keys()):
        one = figures.get(name)
        found.append(
            Standing(
                queue=name,
                counts=one.counts if one else dict.fromkeys(JobState, 0),
                due=one.due if one else 0,
                oldest_due_ms=one.oldest_due_ms if one else 0,
                rules=rules.get(name, QueueRules(name=name)),
            )
        )
    return found


def _table(standings: list[Standing]) -> str:
    states = [
        state
        for state in JobState
        if state in {*WAITING, JobState.RUNNING, JobState.COMPLETED, JobState.FAILED}
        or any(one.counts[state] for one in standings)
    ]
    return table(
        ["queue", *states, "due", "oldest", "rules"],
        [
            (
                one.queue,
                *(one.counts[state] for state in states),
                one.due,
                span(one.oldest_due_ms / 1000) if one.due else "-",
                _rules(one.rules),
            )
            for one in standings
        ],
        right={*states, "due", "oldest"},
    )


def _rules(rules: QueueRules) -> str:
    """What holds for a queue beyond the defaults."""
    parts = []
    if rules.paused:
        parts.append("paused")
    if rules.draining:
        parts.append("draining")
    if rules.concurrency is not None:
        parts.append(f"at most {rules.concurrency:,} at a time")
    if rules.concurrency_per_key is not None:
        parts.append(f"{rules.concurrency_per_key:,} a key")
    if rules.limits:
        parts.append(f"limits {', '.join(rules.limits)}")
    if rules.ageing_s != QueueRules(name="").ageing_s:
        parts.append(f"older by a priority every {span(rules.ageing_s)}")
    return ", ".join(parts) or "open"
