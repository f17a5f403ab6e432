"""What is written of loops that fail and of rules that cannot be read."""

from typing import Any

import pytest

from mailrace.cli.logs import Say, log_work
from mailrace.cli.supervising import _log
from mailrace.events import Events
from mailrace.queue.loops import LoopFailed
from mailrace.queue.watching import AlertRulesUnreadable

Lines = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def lines() -> Lines:
    return []


@pytest.fixture
def say(lines: Lines) -> Say:
    def say(line: str, /, **facts: Any) -> None:
        lines.append((line, facts))

    return say


@pytest.mark.parametrize("kind", ["worker", "supervisor"])
def test_a_loop_that_failed_is_written_down(kind: str, say: Say, lines: Lines) -> None:
    events = Events()
    if kind == "worker":
        log_work(say, events, attempts=False)
    else:
        _log(say, events)
    events.emit(LoopFailed(name="orders", error=OSError("no route"), again_in_s=0.512))
    assert lines == [("will try again", {"what": "orders", "problem": "no route", "in_s": 0.5})]


def test_alert_rules_that_cannot_be_read_are_written_down(say: Say, lines: Lines) -> None:
    events = Events()
    log_work(say, events, attempts=False)
    events.emit(AlertRulesUnreadable(problem="they are of another version"))
    ((what, facts),) = lines
    assert "default ones hold" in what
    assert facts == {"problem": "they are of another version"}
