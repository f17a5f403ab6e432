"""Alerts open when something has been wrong for long enough, close when it is well again."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrace.errors import MisuseError
from mailrace.events import Events
from mailrace.queue import Store
from mailrace.queue.alerts import (
    DEFAULT_RULES,
    Alert,
    AlertKind,
    AlertRule,
    Snapshot,
    check_rules,
    findings,
    judge,
)
from mailrace.queue.figures import QueueFigures, Throughput
from mailrace.queue.processes import ProcessRow, Vitals
from mailrace.queue.queuerules import QueueRules
from mailrace.queue.supervisors import NOTES, SupervisorRow
from mailrace.queue.watching import (
    AlertClosed,
    AlertOpened,
    AlertRulesUnreadable,
    Watching,
    read_alerts,
    read_rules,
    write_rules,
)
from tests.queue.houses import House, add, now_ms

# Thirty seconds into a minute.
NOW_MS = 1_800_000_030_000


def queue(due: int, oldest_s: float = 0.0, name: str = "mail") -> QueueFigures:
    return QueueFigures(queue=name, counts={}, due=due, oldest_due_ms=int(oldest_s * 1000))


def ended(
    ago_s: float, completed: int, failed: int = 0, retried: int = 0, name: str = "mail"
) -> Throughput:
    start_ms = NOW_MS - int(ago_s * 1000)
    return Throughput(
        queue=name, start_ms=start_ms, completed=completed, failed=failed, retried=retried
    )


def process(number: int = 1, silent_s: float = 0.0, **fields: Any) -> ProcessRow:
    vitals = Vitals(
        **{name: fields.pop(name) for name in ("stale_s", "breakers_open") if name in fields}
    )
    return ProcessRow(
        id=number, journal="j", expires_ms=0, pid=4711, host="mill",
        heartbeat_ms=NOW_MS - int(silent_s * 1000), vitals=vitals, **fields,
    )  # fmt: skip


def supervisor(silent_s: float) -> SupervisorRow:
    return SupervisorRow(
        name="one", host="mill", pid=17, heartbeat_ms=NOW_MS - int(silent_s * 1000)
    )


def found(kind: AlertKind, rule: dict[str, Any], **seen: Any) -> list[tuple[str, float]]:
    snapshot = Snapshot(now_ms=NOW_MS, **seen)
    return [
        (finding.subject, finding.value)
        for finding in findings(snapshot, [AlertRule(kind=kind, **rule)])
    ]


# What each rule looks at


def test_a_backlog_is_more_due_jobs_than_the_limit() -> None:
    queues = [queue(10), queue(11, name="other")]
    assert found(AlertKind.BACKLOG, {"limit": 10}, queues=queues) == [("other", 11)]
    assert found(AlertKind.BACKLOG, {"limit": 10, "queue": "mail"}, queues=queues) == []


def test_waiting_is_the_oldest_due_job() -> None:
    queues = [queue(1, 30.0), queue(1, 30.5, name="other"), queue(0, 99.0, name="none due")]
    assert found(AlertKind.WAITING, {"limit": 30}, queues=queues) == [("other", 30.5)]


def test_failures_are_a_share_of_the_attempts_of_five_minutes() -> None:
    throughput = [
        ended(299, completed=10, failed=4, retried=6),
        ended(301, completed=0, failed=900),
        ended(10, completed=19, failed=0, retried=0, name="well"),
    ]
    assert found(AlertKind.FAILURES, {"limit": 0.49}, throughput=throughput) == [("mail", 0.5)]
    assert found(AlertKind.FAILURES, {"limit": 0.5}, throughput=throughput) == []
    few = {"limit": 0.1, "results": 21}
    assert found(AlertKind.FAILURES, few, throughput=throughput) == []
    none = [ended(10, completed=0)]
    assert found(AlertKind.FAILURES, {"limit": 0.1, "results": 0}, throughput=none) == []


def test_a_worker_is_dead_that_is_silent_or_whose_lease_has_ended() -> None:
    processes = [process(1, 16.0), process(2, 16.5), process(3, 1.0, expired=True)]
    assert found(AlertKind.WORKER_DEAD, {"limit": 16}, processes=processes) == [
        ("process:2", 16.5), ("process:3", 1.0),
    ]  # fmt: skip


def test_a_supervisor_is_gone_whose_note_is_old() -> None:
    assert found(AlertKind.SUPERVISOR_GONE, {}, supervisors=[supervisor(15.0)]) == []
    gone = found(AlertKind.SUPERVISOR_GONE, {}, supervisors=[supervisor(15.1)])
    assert gone == [("supervisor:one", 15.1)]


def test_an_open_breaker_is_one_alert_however_many_have_it_open() -> None:
    processes = [
        process(1, breakers_open=("call", "mail")), process(2, breakers_open=("mail",)),
        process(3, breakers_open=("old",), expired=True), process(4),
    ]  # fmt: skip
    assert found(AlertKind.BREAKER_OPEN, {}, processes=processes) == [("call", 1), ("mail", 2)]
    assert found(AlertKind.BREAKER_OPEN, {"limit": 1}, processes=processes) == [("mail", 2)]


def test_throughput_counts_whole_minutes_while_jobs_are_due() -> None:
    # The minute that runs began 30 seconds ago.
    throughput = [
        ended(30, completed=5000), ended(90, completed=60, failed=20), ended(330, completed=20),
        ended(390, completed=9000), ended(90, completed=1, name="other"),
    ]  # fmt: skip
    seen = {"throughput": throughput, "queues": [queue(1), queue(0, name="other")]}
    rule = {"limit": 1201, "queue": "mail"}
    assert found(AlertKind.THROUGHPUT, rule, **seen) == [("mail", 1200)]
    assert found(AlertKind.THROUGHPUT, {"limit": 1200, "queue": "mail"}, **seen) == []
    assert found(AlertKind.THROUGHPUT, {"limit": 1e9, "queue": "other"}, **seen) == []
    assert found(AlertKind.THROUGHPUT, {"limit": 1e9}, **seen) == [("", 1212)]


def test_a_stale_loop_is_that_of_a_process_which_lives() -> None:
    processes = [
        process(1, stale_s=60.0),
        process(2, stale_s=61.0),
        process(3, stale_s=99.0, expired=True),
    ]
    assert found(AlertKind.LOOP_STALE, {"limit": 60}, processes=processes) == [("process:2", 61.0)]


def test_the_rule_of_a_queue_stands_in_place_of_the_one_for_all() -> None:
    rules = [
        AlertRule(kind=AlertKind.BACKLOG, limit=10),
        AlertRule(kind=AlertKind.BACKLOG, limit=1000, queue="mail"),
    ]
    seen = Snapshot(now_ms=NOW_MS, queues=[queue(500), queue(500, name="other")])
    assert [finding.subject for finding in findings(seen, rules)] == ["other"]
    seen = Snapshot(now_ms=NOW_MS, queues=[queue(5000)])
    assert [finding.rule.limit for finding in findings(seen, rules)] == [1000]


def test_each_text_says_what_is_the_case_and_what_to_do() -> None:
    seen = Snapshot(
        now_ms=NOW_MS,
        queues=[queue(200_000, 400.0), queue(1, 301.0, name="held")],
        throughput=[ended(90, completed=10, failed=30)],
        processes=[process(1, 20.0, stale_s=90.0, breakers_open=("call",))],
        supervisors=[supervisor(40.0)],
        paused=frozenset({"held"}),
    )
    rules = [*DEFAULT_RULES, AlertRule(kind=AlertKind.THROUGHPUT, limit=10_000)]
    texts = {(found.rule.kind, found.subject): found.text for found in findings(seen, rules)}
    assert {kind for kind, _ in texts} == set(AlertKind)
    assert all(": " in text and "\n" not in text for text in texts.values())
    assert texts[AlertKind.BACKLOG, "mail"].startswith("200,000 jobs are due in the queue 'mail': ")
    assert texts[AlertKind.WAITING, "held"].endswith("the queue is paused; resume it")
    assert "pid 4711 on mill" in texts[AlertKind.WORKER_DEAD, "process:1"]
    assert "30 of 40 attempts" in texts[AlertKind.FAILURES, "mail"]


# Opening and closing

RULE = AlertRule(kind=AlertKind.BACKLOG, limit=10, for_s=60.0, clear_s=30.0)


class Course:
    """One look after the other."""

    def __init__(self, rule: AlertRule = RULE) -> None:
        self.rule = rule
        self.standing: tuple[Alert, ...] = ()

    def at(self, second: float, due: int) -> list[str]:
        moment = NOW_MS + int(second * 1000)
        seen = Snapshot(now_ms=moment, queues=[queue(due)])
        changes = judge(seen, [self.rule], self.standing, moment)
        self.standing = changes.standing
        return [f"+{alert.subject}" for alert in changes.opened] + [
            f"-{alert.subject}" for alert in changes.closed
        ]


def test_an_alert_opens_when_its_condition_has_held_for_long_enough() -> None:
    course = Course()
    assert course.at(0, due=11) == []
    assert course.at(59.9, due=12) == []
    assert course.at(60, due=13) == ["+mail"]
    assert course.at(70, due=14) == []
    (alert,) = course.standing
    assert (alert.value, alert.since_ms, alert.opened_ms) == (14, NOW_MS, NOW_MS + 60_000)


def test_a_condition_that_ceased_in_between_begins_anew() -> None:
    course = Course()
    course.at(0, due=11)
    assert course.at(50, due=10) == []
    assert not course.standing
    assert course.at(51, due=11) == []
    assert course.at(110.9, due=11) == []
    assert course.at(111, due=11) == ["+mail"]


def test_an_alert_closes_when_its_condition_has_not_held_for_long_enough() -> None:
    course = Course()
    course.at(0, due=11)
    course.at(60, due=11)
    assert course.at(89.9, due=0) == []
    assert len(course.standing) == 1
    assert course.at(90, due=0) == ["-mail"]
    assert not course.standing


def test_an_alert_that_comes_back_before_it_closed_stays_the_same_one() -> None:
    course = Course()
    course.at(0, due=11)
    course.at(60, due=11)
    course.at(80, due=0)
    assert course.at(85, due=11) == []
    assert course.at(114, due=0) == []
    assert course.at(115, due=0) == ["-mail"]


def test_an_alert_whose_rule_is_gone_closes() -> None:
    course = Course(AlertRule(kind=AlertKind.BACKLOG, limit=10, for_s=0.0, clear_s=30.0))
    assert course.at(0, due=11) == ["+mail"]
    late = judge(Snapshot(now_ms=0), [], course.standing, NOW_MS + 30_000)
    assert (len(late.closed), late.standing) == (1, ())


@given(
    looks=st.lists(st.tuples(st.integers(0, 40), st.booleans(), st.booleans()), max_size=60),
    for_s=st.integers(0, 60),
    clear_s=st.integers(0, 60),
)
def test_alerts_open_and_close_in_turn_and_only_after_their_times(
    looks: list[tuple[int, bool, bool]], for_s: int, clear_s: int
) -> None:
    rule = AlertRule(kind=AlertKind.BACKLOG, limit=10, for_s=for_s, clear_s=clear_s)
    standing: tuple[Alert, ...] = ()
    is_open = {"a": False, "b": False}
    held_since: dict[str, int | None] = {"a": None, "b": None}
    last_held = {"a": 0, "b": 0}
    now = NOW_MS
    for passed_s, *held in looks:
        now += passed_s * 1000
        queues = [queue(11 if on else 0, name=name) for name, on in zip("ab", held, strict=True)]
        changes = judge(Snapshot(now_ms=now, queues=queues), [rule], standing, now)
        standing = changes.standing
        keys = [(alert.kind, alert.subject) for alert in standing]
        assert len(keys) == len(set(keys))
        opened = {alert.subject for alert in changes.opened}
        closed = {alert.subject for alert in changes.closed}
        for name, on in zip("ab", held, strict=True):
            since = held_since[name] = (held_since[name] or now) if on else None
            last_held[name] = now if on else last_held[name]
            if not is_open[name]:
                due = since is not None and now - since >= for_s * 1000
                assert (name in opened, name in closed) == (due, False)
            else:
                over = not on and now - last_held[name] >= clear_s * 1000
                assert (name in opened, name in closed) == (False, over)
            is_open[name] = (is_open[name] or name in opened) and name not in closed


# Settings


@pytest.mark.parametrize(
    "wrong",
    [
        {"limit": -1.0},
        {"limit": float("nan")},
        {"for_s": -1.0},
        {"clear_s": float("inf")},
        {"results": -1},
        {"kind": AlertKind.FAILURES, "limit": 1.0},
        {"kind": AlertKind.BREAKER_OPEN, "queue": "mail"},
    ],
)
def test_rules_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(MisuseError):
        AlertRule(**({"kind": AlertKind.BACKLOG} | wrong))


def test_two_rules_for_the_same_thing_are_refused() -> None:
    assert check_rules(DEFAULT_RULES) == DEFAULT_RULES
    with pytest.raises(MisuseError, match="two rules backlog for the queue 'mail'"):
        check_rules([AlertRule(kind=AlertKind.BACKLOG, queue="mail")] * 2)


# In the cluster


class Heard:
    def __init__(self) -> None:
        self.events = Events()
        self.all: list[object] = []
        for kind in (AlertOpened, AlertClosed, AlertRulesUnreadable):
            self.events.follow(kind, self.all.append)

    def new(self) -> list[object]:
        """Since the last time: opened and closed ones by kind and subject, in words."""
        words = [
            f"{type(event).__name__} {event.alert.kind} {event.alert.subject}"
            if isinstance(event, AlertOpened | AlertClosed)
            else event
            for event in self.all
        ]
        self.all.clear()
        return words


async def test_where_alerts_stand_is_kept_for_whoever_looks_next(
    house: House, store: Store
) -> None:
    other, heard = await house.opened(), Heard()
    one, two = Watching(store, heard.events), Watching(other, heard.events)
    await write_rules(
        store, (AlertRule(kind=AlertKind.WAITING, limit=100.0, for_s=30.0, clear_s=30.0),)
    )
    await add(store, "a")
    await one.turn()
    house.clock.move_to(101.0)
    await one.turn()
    assert heard.new() == []
    assert [alert.is_open for alert in await read_alerts(other)] == [False]
    house.clock.move_to(131.0)
    await two.turn()
    assert heard.new() == ["AlertOpened waiting default"]
    await one.turn()
    assert heard.new() == []
    (alert,) = await read_alerts(other)
    assert alert.since_ms == now_ms(house) - 30_000
    assert alert.opened_ms == now_ms(house)
    await store.set_queue(QueueRules(name="default", paused=True))
    await two.turn()
    (alert,) = await read_alerts(store)
    assert alert.text.endswith("the queue is paused; resume it")
    await write_rules(store, None)
    assert await read_rules(other) == DEFAULT_RULES


async def test_a_supervisor_that_was_not_stopped_is_missed_and_in_the_end_forgotten(
    house: House, store: Store
) -> None:
    heard = Heard()
    watching = Watching(store, heard.events)
    row = SupervisorRow(name="one", heartbeat_ms=now_ms(house))
    await store.note(f"{NOTES}one", msgspec.json.encode(row))
    house.clock.move_to(15.0)
    await watching.turn()
    assert heard.new() == []
    house.clock.move_to(16.0)
    await watching.turn()
    assert heard.new() == ["AlertOpened supervisor gone supervisor:one"]
    house.clock.move_to(3601.0)
    await watching.turn()
    assert await store.notes(NOTES) == {}
    house.clock.move_to(3700.0)
    await watching.turn()
    assert heard.new() == ["AlertClosed supervisor gone supervisor:one"]
    assert await read_alerts(store) == []


async def test_notes_that_cannot_be_read_stop_nothing(store: Store) -> None:
    heard = Heard()
    await store.note("alert-rules", b'[{"kind": "of the future"}]')
    await store.note("alerts", b'[{"kind": "of the future"}]')
    await store.note(f"{NOTES}odd", b"[]")
    await Watching(store, heard.events).turn()
    (event,) = heard.all
    assert isinstance(event, AlertRulesUnreadable)
    assert "cannot be read" in event.problem
    assert await read_alerts(store) == []
