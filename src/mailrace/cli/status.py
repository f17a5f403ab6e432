"""`mailrace status`: where the campaigns of a store stand."""

import datetime as dt
from typing import Final

import msgspec

from mailrace.cli.exits import DONE
from mailrace.cli.opening import on_store
from mailrace.cli.output import as_json, tell
from mailrace.cli.summary import reason_lines
from mailrace.cli.words import pace
from mailrace.errors import MisuseError
from mailrace.queue import JobState, Reason, Store
from mailrace.queue.words import counted

# No message of a campaign comes into these by itself: shown only where one is.
_RARE: Final = frozenset({JobState.SCHEDULED, JobState.CANCELLED, JobState.EXPIRED})


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """A campaign's standing; what `--json` prints. The counts add up to `people`.

    Attributes:
        states: Every state a message can be in, with its count.
        rate: Messages a second, over the minute before the last one.
        first, last: When the first and the last attempt ended, ISO 8601.
        next_try: When the first retry is due.
    """

    campaign: str
    people: int
    states: dict[JobState, int]
    rate: float
    first: str | None
    last: str | None
    next_try: str | None
    reasons: list[Reason]


def status(
    campaign: str | None = None,
    *,
    store: str | None = None,
    json: bool = False,
) -> int:
    """Shows where campaigns stand: every state with its count; the numbers always add up.

    Args:
        campaign: One campaign; all of them when left out.
        store: Where they are kept, by default sqlite:///mailrace.db.
        json: Print one JSON document instead of text.
    """
    found = on_store(store, lambda queue: _read(queue.store, campaign))
    if json:
        tell(as_json(found))
    else:
        tell("\n\n".join("\n".join(_lines(one)) for one in found) or "no campaigns yet")
    return DONE


async def _read(store: Store, campaign: str | None) -> list[Status]:
    batches = await store.batches()
    if campaign is not None:
        names = ", ".join(batch.name for batch in batches) or "none"
        batches = [batch for batch in batches if batch.name == campaign]
        if not batches:
            raise MisuseError(f"there is no campaign {campaign!r}", hint=f"in this store: {names}")
    return [await _status(store, batch.id) for batch in batches]


async def _status(store: Store, batch_id: int) -> Status:
    report = await store.report(batch_id)
    return Status(
        campaign=report.name,
        people=report.accepted,
        states=report.counts,
        rate=round(report.rate, 1),
        first=_time(report.first_ms),
        last=_time(report.last_ms),
        next_try=_time(report.next_due_ms),
        reasons=await store.reasons(batch_id),
    )


def _lines(one: Status) -> list[str]:
    lines = [f"{one.campaign}: {counted(one.people, 'person', 'people')}"]
    lines += [
        f"  {jobs:>8,}  {state}" for state, jobs in one.states.items() if jobs or state not in _RARE
    ]
    if one.first and one.last:
        lines.append(f"  first {one.first}   last {one.last}   {pace(one.rate)}")
    if one.next_try:
        lines.append(f"  next try {one.next_try}")
    if one.reasons:
        lines += ["  why:", *reason_lines(one.reasons)]
    return lines


def _time(unix_ms: int | None) -> str | None:
    if unix_ms is None:
        return None
    at = dt.datetime.fromtimestamp(unix_ms / 1000).astimezone()
    return at.isoformat(sep=" ", timespec="seconds")
