"""When to wake somebody: rules over what was seen of the whole cluster, and what they say."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import isfinite
from types import MappingProxyType
from typing import Final

import msgspec

from mailrace.errors import MisuseError
from mailrace.queue.figures import MINUTE_MS, QueueFigures, Throughput
from mailrace.queue.processes import ProcessRow
from mailrace.queue.supervisors import SupervisorRow

SPAN_MS: Final = 300_000
"""Rates are those of the last five minutes."""
_PER_HOUR: Final = 12  # spans


class AlertKind(StrEnum):
    """What can be wrong."""

    BACKLOG = "backlog"
    WAITING = "waiting"
    FAILURES = "failures"
    WORKER_DEAD = "worker dead"
    SUPERVISOR_GONE = "supervisor gone"
    BREAKER_OPEN = "breaker open"
    THROUGHPUT = "throughput"
    LOOP_STALE = "loop stale"


OF_QUEUES: Final = frozenset(
    {AlertKind.BACKLOG, AlertKind.WAITING, AlertKind.FAILURES, AlertKind.THROUGHPUT}
)
"""Kinds of rules that can be given for one queue."""


class AlertRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When one kind of alert opens and closes.

    Attributes:
        limit: `backlog`: due jobs; `waiting`: seconds that the oldest due job has waited;
            `failures`: the share of attempts that did not end well, retries included; `worker
            dead`: seconds without a heartbeat; `loop stale`: seconds since a loop's last useful
            turn; `breaker open`: processes in which it is open. More than that opens the alert;
            for `throughput`, jobs that end in an hour, fewer do, while jobs are due.
        queue: The rule holds for this queue only, and in place of the one for all.
        for_s: How long it has to hold before the alert opens; 0: at once.
        clear_s: How long it must not hold any more before the alert closes.
        results: `failures`: fewer attempts in five minutes say nothing.
    """

    kind: AlertKind
    limit: float = 0.0
    queue: str | None = None
    for_s: float = 60.0
    clear_s: float = 60.0
    results: int = 20

    def __post_init__(self) -> None:
        for name in ("limit", "for_s", "clear_s", "results"):
            value = getattr(self, name)
            if not (isfinite(value) and value >= 0):
                raise MisuseError(
                    f"{name} of the rule {self.kind!s} is {value}", hint="give zero or more"
                )
        if self.kind is AlertKind.FAILURES and self.limit >= 1:
            raise MisuseError(
                f"limit of the rule {self.kind!s} is {self.limit:g}",
                hint="give a share below 1, such as 0.25",
            )
        if self.queue is not None and self.kind not in OF_QUEUES:
            raise MisuseError(
                f"the rule {self.kind!s} is none for the queue {self.queue!r}",
                hint=f"leave queue out, or take one of: {', '.join(sorted(OF_QUEUES))}",
            )


DEFAULT_RULES: Final = (
    AlertRule(kind=AlertKind.BACKLOG, limit=100_000, for_s=300.0),
    AlertRule(kind=AlertKind.WAITING, limit=300.0),
    AlertRule(kind=AlertKind.FAILURES, limit=0.25, for_s=0.0, clear_s=120.0),
    # Above three heartbeats, and below the lease after which its jobs are rescued and the row goes.
    AlertRule(kind=AlertKind.WORKER_DEAD, limit=16.0, for_s=0.0, clear_s=120.0),
    AlertRule(kind=AlertKind.SUPERVISOR_GONE, for_s=0.0),
    AlertRule(kind=AlertKind.BREAKER_OPEN, for_s=0.0),
    AlertRule(kind=AlertKind.LOOP_STALE, limit=60.0, for_s=30.0),
)
"""All but a target for throughput, which only the one who has it knows."""


def check_rules(rules: Sequence[AlertRule]) -> tuple[AlertRule, ...]:
    """The rules, if no two are for the same thing.

    Raises:
        MisuseError: Two are.
    """
    seen = set()
    for rule in rules:
        key = rule.kind, rule.queue
        if key in seen:
            whose = f" for the queue {rule.queue!r}" if rule.queue is not None else ""
            raise MisuseError(f"there are two rules {rule.kind!s}{whose}", hint="keep one of them")
        seen.add(key)
    return tuple(rules)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What is known of the cluster at one moment.

    Attributes:
        now_ms: By the store's clock.
        throughput: Of the last six minutes at least, in slices of a minute.
        paused: The queues from which nothing is claimed.
    """

    now_ms: int
    queues: Sequence[QueueFigures] = ()
    throughput: Sequence[Throughput] = ()
    processes: Sequence[ProcessRow] = ()
    supervisors: Sequence[SupervisorRow] = ()
    paused: frozenset[str] = frozenset()


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a person should know of, or that may become such.

    Attributes:
        subject: What it is about: a queue, a process, a supervisor, a kind of job.
        value: By how much, in the unit of the rule's limit, when it was last seen.
        text: What is the case, and what to do about it.
        since_ms: Since when it is so, Unix milliseconds by the store's clock.
        seen_ms: When it was last so.
        opened_ms: When it had been so for long enough; `None`: it has not yet.
        clear_s: How long it must not be so before the alert closes.
    """

    kind: AlertKind
    subject: str
    value: float
    text: str
    since_ms: int
    seen_ms: int
    opened_ms: int | None = None
    clear_s: float = 0.0

    @property
    def is_open(self) -> bool:
        return self.opened_ms is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What a look at the cluster changed.

    Attributes:
        standing: All alerts, also those that are not open yet: what the next look goes on from.
        opened: Those that opened now; `closed`: that did until now.
    """

    standing: tuple[Alert, ...]
    opened: tuple[Alert, ...] = ()
    closed: tuple[Alert, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A rule's condition that holds now."""

    rule: AlertRule
    subject: str
    value: float
    text: str


def judge(
    seen: Snapshot, rules: Sequence[AlertRule], standing: Sequence[Alert], now_ms: int
) -> Changes:
    """Says which alerts open and close; there is one at most for each kind and subject."""
    before = {(alert.kind, alert.subject): alert for alert in standing}
    now: dict[tuple[AlertKind, str], Alert] = {}
    for finding in findings(seen, rules):
        key = finding.rule.kind, finding.subject
        now[key] = _found(finding, before.get(key), now_ms)
    was_open = {key for key, alert in before.items() if alert.is_open}
    opened = tuple(alert for key, alert in now.items() if alert.is_open and key not in was_open)
    missing = [alert for key, alert in before.items() if key not in now and alert.is_open]
    closed = tuple(alert for alert in missing if now_ms - alert.seen_ms >= alert.clear_s * 1000)
    kept = [alert for alert in missing if alert not in closed]
    return Changes(standing=(*now.values(), *kept), opened=opened, closed=closed)


def _found(finding: Finding, before: Alert | None, now_ms: int) -> Alert:
    since_ms = now_ms if before is None else before.since_ms
    opened_ms = None if before is None else before.opened_ms
    if opened_ms is None and now_ms - since_ms >= finding.rule.for_s * 1000:
        opened_ms = now_ms
    return Alert(
        kind=finding.rule.kind,
        subject=finding.subject,
        value=finding.value,
        text=finding.text,
        since_ms=since_ms,
        seen_ms=now_ms,
        opened_ms=opened_ms,
        clear_s=finding.rule.clear_s,
    )


def findings(seen: Snapshot, rules: Sequence[AlertRule]) -> Iterator[Finding]:
    """The conditions that hold in this moment."""
    own = defaultdict(set)
    for rule in rules:
        if rule.queue is not None:
            own[rule.kind].add(rule.queue)
    for rule in rules:
        for finding in _FIND[rule.kind](seen, rule):
            if rule.queue is not None or finding.subject not in own[rule.kind]:
                yield finding


def _of_rule(seen: Snapshot, rule: AlertRule) -> Iterator[QueueFigures]:
    return (row for row in seen.queues if rule.queue is None or row.queue == rule.queue)


def _backlog(seen: Snapshot, rule: AlertRule) -> Iterator[Finding]:
    for row in _of_rule(seen, rule):
        if row.due > rule.limit:
            due = "1 job is due" if row.due == 1 else f"{row.due:,} jobs are due"
            text = f"{due} in the queue {row.queue!r}: "
            yield _finding(rule, row.queue, row.due, text + _to_do(seen, row.queue))


def _waiting(seen: Snapshot, rule: AlertRule) -> Iterator[Finding]:
    for row in _of_rule(seen, rule):
        waited_s = row.oldest_due_ms / 1000
        if row.due and waited_s > rule.limit:
            text = f"a job in the queue {row.queue!r} has waited for {waited_s:,.0f} seconds: "
            yield _finding(rule, row.queue, waited_s, text + _to_do(seen, row.queue))


def _to_do(seen: Snapshot, queue: str) -> str:
    if queue in seen.paused:
        return "the queue is paused; resume it"
    return "start more processes, or ask why it does not move"


def _failures(seen: Snapshot, rule: AlertRule) -> Iterator[Finding]:
    good: dict[str, int] = defaultdict(int)
    bad: dict[str, int] = defaultdict(int)
    for part in seen.throughput:
        if part.start_ms > seen.now_ms - SPAN_MS and rule.queue in (None, part.queue):
            good[part.queue] += part.completed
            bad[part.queue] += part.failed + part.retried
    for queue, failed in bad.items():
        attempts = failed + good[queue]
        if attempts >= max(1, rule.results) and failed / attempts > rule.limit:
            yield _finding(
                rule,
                queue,
                failed / attempts,
                f"{failed:,} of {attempts:,} attempts in the queue {queue!r} did not end well in"
                " the last five minutes: look at the most frequent reasons",
            )


def _workers_dead(seen: Snapshot, rule: AlertRule) -> Iterator[Finding]:
    for row in seen.processes:
        silent_s = (seen.now_ms - row.heartbeat_ms) / 1000
        if row.expired or silent_s > rule.limit:
            yield _finding(
                rule,
                f"process:{row.id}",
                silent_s,
                f"process {row.id} (pid {row.pid} on {row.host}) has been silent for"
                f" {silent_s:,.0f} seconds, and its jobs go to others: look whether it was killed,"
                " and start another one if nobody watches over it",
            )


def _supervisors_gone(seen: Snapshot, rule: AlertRule) -> Iterator[Finding]:
    for row in seen.supervisors:
        if row.is_gone(seen.now_ms):
            silent_s = (seen.now_ms - row.heartbeat_ms) / 1000
            yield _finding(
                rule,
                f"supervisor:{row.name}",
                silent_s,
                f"the supervisor {row.name!r} (pid {row.pid} on {row.host}) has been silent for"
                f" {silent_s:,.0f} seconds, and was not stopped: start it again, or see whether"
                " its machine is up",
            )


def _breakers_open(seen: Snapshot, rule: AlertRule) -> Iterator[Finding]:
    processes: dict[str, int] = defaultdict(int)
    for row in seen.processes:
        if not row.expired:
            for kind in row.vitals.breakers_open:
                processes[kind] += 1
    for kind, number in sorted(processes.items()):
        if number > rule.limit:
            yield _finding(
                rule,
                kind,
                number,
                f"jobs of the kind {kind!r} are put off: its breaker is open in {number} of"
                f" {len(seen.processes)} processes; see what its far side says, and reset the"
                " breakers when that is mended",
            )


def _throughput(seen: Snapshot, rule: AlertRule) -> Iterator[Finding]:
    until_ms = seen.now_ms - seen.now_ms % MINUTE_MS
    ended = sum(
        part.completed + part.failed
        for part in seen.throughput
        if until_ms - SPAN_MS <= part.start_ms < until_ms and rule.queue in (None, part.queue)
    )
    per_hour = ended * _PER_HOUR
    due = sum(row.due for row in _of_rule(seen, rule))
    if due and per_hour < rule.limit:
        where = "all queues" if rule.queue is None else f"the queue {rule.queue!r}"
        held = "; the queue is paused" if rule.queue in seen.paused else ""
        yield _finding(
            rule,
            rule.queue or "",
            per_hour,
            f"{where}: {per_hour:,} jobs an hour end, and not {rule.limit:,.0f}, while {due:,} are"
            f" due: start more processes, or ask why it does not move{held}",
        )


def _loops_stale(seen: Snapshot, rule: AlertRule) -> Iterator[Finding]:
    for row in seen.processes:
        if not row.expired and row.vitals.stale_s > rule.limit:
            yield _finding(
                rule,
                f"process:{row.id}",
                row.vitals.stale_s,
                f"a loop of process {row.id} (pid {row.pid} on {row.host}) has done nothing useful"
                f" for {row.vitals.stale_s:,.0f} seconds: restart the process",
            )


def _finding(rule: AlertRule, subject: str, value: float, text: str) -> Finding:
    return Finding(rule=rule, subject=subject, value=value, text=text)


_FIND: Final[Mapping[AlertKind, Callable[[Snapshot, AlertRule], Iterator[Finding]]]] = (
    MappingProxyType(
        {
            AlertKind.BACKLOG: _backlog,
            AlertKind.WAITING: _waiting,
            AlertKind.FAILURES: _failures,
            AlertKind.WORKER_DEAD: _workers_dead,
            AlertKind.SUPERVISOR_GONE: _supervisors_gone,
            AlertKind.BREAKER_OPEN: _breakers_open,
            AlertKind.THROUGHPUT: _throughput,
            AlertKind.LOOP_STALE: _loops_stale,
        }
    )
)
