"""`mailrace stats`: what was done lately, what waits, and what is wrong."""

import msgspec

from mailrace.cli.exits import DONE
from mailrace.cli.opening import on_store
from mailrace.cli.output import as_json, tell
from mailrace.cli.tables import table, time_of
from mailrace.cli.words import printable, span
from mailrace.errors import MisuseError
from mailrace.jobs import JobState, Queue
from mailrace.queue.alerts import Alert
from mailrace.queue.cluster import Cluster
from mailrace.queue.standing import SystemFigures
from mailrace.queue.words import counted

_HOURS_MAX = 24 * 366


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints.

    Attributes:
        hours: What the ended jobs are counted over.
        alerts: Those that are open, the oldest first.
    """

    hours: float
    figures: SystemFigures
    alerts: list[Alert]


def stats(*, hours: float = 1.0, store: str | None = None, json: bool = False) -> int:
    """Shows what was done lately, what waits, who works, and which alerts are open.

    Args:
        hours: How far back, by default 1.
        store: Where the jobs are, by default sqlite:///mailrace.db.
        json: Print one JSON document instead of text.
    """
    if not 0 < hours <= _HOURS_MAX:
        raise MisuseError(f"--hours is {hours}", hint=f"give more than 0, at most {_HOURS_MAX}")

    async def look(queue: Queue) -> Stats:
        cluster = Cluster(queue.store)
        figures = await cluster.statistics(hours)
        return Stats(hours=hours, figures=figures, alerts=await cluster.alerts())

    found = on_store(store, look)
    tell(as_json(found) if json else "\n".join(_lines(found)))
    return DONE


def _lines(found: Stats) -> list[str]:
    figures = found.figures
    ended = [
        f"{name} {sum(getattr(one, name) for one in figures.queues):,}"
        for name in ("completed", "failed", "retried")
    ]
    oldest = f", the oldest for {span(figures.oldest_due_s)}" if figures.due else ""
    workers = ", ".join(f"{count} {state}" for state, count in sorted(figures.workers.items()))
    lines = [
        f"last {found.hours:g} h: {', '.join(ended)}",
        f"waiting: {counted(figures.due, 'job')} due{oldest}",
        f"processes: {workers or 'none'}; {figures.in_hand} of {figures.hands} jobs in hand",
    ]
    if figures.queues:
        lines += ["", _queues(figures)]
    if found.alerts:
        lines += ["", "alerts:"]
    lines += [
        f"  {time_of(one.opened_ms)}  {one.kind}: {printable(one.text)}" for one in found.alerts
    ]
    return lines


def _queues(figures: SystemFigures) -> str:
    numbers = ["due", "oldest", "running", "last minute", "completed", "failed", "retried"]
    return table(
        ["queue", *numbers, "processes", "state"],
        [
            (
                one.queue,
                one.due,
                span(one.oldest_due_s) if one.due else "-",
                one.counts[JobState.RUNNING],
                one.per_minute,
                one.completed,
                one.failed,
                one.retried,
                one.workers,
                " ".join(
                    word for word, on in (("paused", one.paused), ("draining", one.draining)) if on
                )
                or "open",
            )
            for one in figures.queues
        ],
        right={*numbers, "processes"},
    )
