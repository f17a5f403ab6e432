"""`mailrace limits`: how fast things may go, over all processes."""

import re
from collections.abc import Iterable
from typing import Final

import msgspec

from mailrace.cli.exits import DONE
from mailrace.cli.opening import on_store
from mailrace.cli.output import as_json, tell
from mailrace.cli.tables import table
from mailrace.cli.words import pace, span
from mailrace.errors import MisuseError
from mailrace.jobs import Queue
from mailrace.queue import LimitRow
from mailrace.queue.limits import schedule_of
from mailrace.queue.queuerules import QueueRules

_PLACEHOLDER: Final = re.compile(r"\{(?:tenant|process|host)\}")


class LimitStanding(LimitRow, frozen=True, kw_only=True):
    """A limit and who uses it; what `--json` prints.

    Attributes:
        next_slot_in_s: In how many seconds the next slot is that nobody has taken.
        queues: Those whose jobs wait for it.
    """

    next_slot_in_s: float
    queues: list[str]


def list_limits(*, store: str | None = None, json: bool = False) -> int:
    """Lists the limits: their rates and pace, their next free slot, who waits for them.

    Args:
        store: Where they are kept, by default sqlite:///mailrace.db.
        json: Print one JSON document instead of text.
    """
    found = on_store(store, _standings)
    if json:
        tell(as_json(found))
    else:
        tell(_table(found) if found else "no limits yet")
    return DONE


def why(name: str, /, *, store: str | None = None, json: bool = False) -> int:
    """Says what a limit lets go, when the next slot is, and which queues wait for it.

    Args:
        name: The limit.
        store: Where it is kept, by default sqlite:///mailrace.db.
        json: Print one JSON document instead of text.
    """
    found = on_store(store, _standings)
    one = next((one for one in found if one.name == name), None)
    if one is None:
        known = ", ".join(one.name for one in found) or "none"
        raise MisuseError(f"there is no limit {name!r}", hint=f"in this store: {known}")
    tell(as_json(one) if json else "\n".join(_sentences(one)))
    return DONE


def set_limit(
    name: str,
    rates: str,
    /,
    *,
    margin: float = 0.0,
    adaptive: bool = False,
    store: str | None = None,
    json: bool = False,
) -> int:
    """Makes or changes a limit, while everybody works.

    Args:
        name: The limit, as queues name it.
        rates: One or several, all of which hold: "100/s, 5000/h".
        margin: The share that is kept back: 0.1 uses 90 %.
        adaptive: Slowed down by handlers that answer SlowDown; it comes back by itself.
        store: Where it is kept, by default sqlite:///mailrace.db.
        json: Print one JSON document instead of text.
    """
    if not name.strip():
        raise MisuseError("the name of the limit is empty", hint="give one that queues can name")

    async def change(queue: Queue) -> LimitRow:
        await queue.set_limit(name, rates, margin=margin, adaptive=adaptive)
        return next(one for one in await queue.store.limits() if one.name == name)

    found = on_store(store, change)
    tell(as_json(found) if json else f"{name}: {found.rates}{_margin(found)}")
    return DONE


def remove(name: str, /, *, store: str | None = None, json: bool = False) -> int:
    """Removes a limit. Jobs of queues that still name it wait, and these are shown.

    Args:
        name: The limit.
        store: Where it is kept, by default sqlite:///mailrace.db.
        json: Print one JSON document instead of text.
    """

    async def change(queue: Queue) -> list[str]:
        names = [one.name for one in await queue.store.limits()]
        if not await queue.store.remove_limit(name):
            known = ", ".join(names) or "none"
            raise MisuseError(f"there is no limit {name!r}", hint=f"in this store: {known}")
        return _waiting_for(name, await queue.store.queue_rules(), names)

    waiting = on_store(store, change)
    if json:
        tell(as_json({"removed": name, "queues": waiting}))
    else:
        verb = "waits" if len(waiting) == 1 else "wait"
        tell(f"{name} removed" + (f"; {', '.join(waiting)} {verb} for it" if waiting else ""))
    return DONE


def missing(wanted: Iterable[str], limits: Iterable[str]) -> list[str]:
    """Those of a queue's limits that nobody has set, for no tenant, process or host either."""
    known = list(limits)
    return [one for one in wanted if not any(_names(one, name) for name in known)]


def _waiting_for(name: str, rules: Iterable[QueueRules], limits: Iterable[str]) -> list[str]:
    """The queues whose jobs wait when a limit is gone: no template makes it anew for them."""
    templates = set(limits) - {name}
    return sorted(
        rule.name
        for rule in rules
        if any(_names(one, name) and one not in templates for one in rule.limits)
    )


async def _standings(queue: Queue) -> list[LimitStanding]:
    rules, now_ms = await queue.store.queue_rules(), await queue.store.now_ms()
    return [
        LimitStanding(
            **msgspec.structs.asdict(limit),
            next_slot_in_s=round(max(0.0, limit.next_slot_ms - now_ms) / 1000, 3),
            queues=sorted(
                rule.name
                for rule in rules
                if any(_names(pattern, limit.name) for pattern in rule.limits)
            ),
        )
        for limit in await queue.store.limits()
    ]


def _names(pattern: str, name: str) -> bool:
    """Whether a queue's limit is this one, for some tenant, process or host."""
    pieces = map(re.escape, _PLACEHOLDER.split(pattern))
    return re.fullmatch("(.*)".join(pieces), name, re.DOTALL) is not None


def _table(limits: list[LimitStanding]) -> str:
    return table(
        ["limit", "rates", "margin", "adaptive", "pace", "next slot", "queues"],
        [
            (
                one.name,
                one.rates,
                f"{one.margin:.0%}",
                one.adaptive,
                f"{one.pace:.0%}",
                _next_slot(one),
                ", ".join(one.queues),
            )
            for one in limits
        ],
        right={"margin", "pace", "next slot"},
    )


def _sentences(limit: LimitStanding) -> list[str]:
    slowed = f", slowed to {limit.pace:.0%} of that by the far side" if limit.pace < 1 else ""
    interval_s = schedule_of(limit).interval_s
    said = [
        f"it lets go {limit.rates}{_margin(limit)}{slowed}: one slot every {span(interval_s)}"
        if interval_s >= 0.1
        else f"it lets go {limit.rates}{_margin(limit)}{slowed}: {pace(1 / interval_s)} evenly",
        f"its next free slot is {'now' if not limit.next_slot_in_s else f'in {_next_slot(limit)}'}",
    ]
    if limit.queues:
        return [*said, f"queues that wait for it: {', '.join(limit.queues)}"]
    return [*said, "no queue waits for it: mailrace queues set NAME --limit gives it one"]


def _next_slot(limit: LimitStanding) -> str:
    return span(limit.next_slot_in_s) if limit.next_slot_in_s else "now"


def _margin(limit: LimitRow) -> str:
    adaptive = ", adaptive" if limit.adaptive else ""
    return (f", {limit.margin:.0%} kept back" if limit.margin else "") + adaptive
