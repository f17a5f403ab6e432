"""`mailrace queues`, `limits` and `schedules`: what holds for everybody, on either store."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from mailrace.errors import ConflictError
from mailrace.jobs import Handlers, open_queue
from tests.system.workbench import Command, enqueue, states_of, work_off

pytestmark = pytest.mark.usefixtures("folder")
handlers = Handlers()


@handlers.register("greet")
async def greet(name: str) -> None: ...


def test_queues_with_their_counts_and_rules(store: str, command: Command) -> None:
    enqueue(store, "greet", ["a", "b"], queue="mail")
    work_off(store, handlers)
    enqueue(store, "greet", ["c", "d", "e"], queue="mail")
    command.text("queues", "pause", "odd")
    mail, odd = command.json("queues")
    assert (mail["queue"], mail["due"], odd["queue"], odd["due"]) == ("mail", 3, "odd", 0)
    assert {state: jobs for state, jobs in mail["counts"].items() if jobs} == {
        "available": 3,
        "completed": 2,
    }
    assert mail["oldest_due_ms"] >= 0
    assert (mail["rules"]["paused"], odd["rules"]["paused"]) == (False, True)
    lines = command.text("queues").splitlines()
    assert lines[0].split() == [
        "queue", "scheduled", "available", "running", "retryable", "completed", "failed", "due",
        "oldest", "rules",
    ]  # fmt: skip
    assert lines[1].split()[:8] == ["mail", "0", "3", "0", "0", "2", "0", "3"]
    assert lines[1].endswith("  open")
    assert lines[2].endswith("  -  paused")


def test_a_queue_is_paused_drained_and_resumed(store: str, command: Command) -> None:
    enqueue(store, "greet", ["a"], queue="mail")
    assert command.text("queues", "pause", "mail") == "mail: paused\n"
    assert command.text("queues", "drain", "mail") == "mail: paused, draining\n"
    with pytest.raises(ConflictError):
        enqueue(store, "greet", ["b"], queue="mail")
    assert command.text("queues", "resume", "mail") == "mail: open\n"
    enqueue(store, "greet", ["b"], queue="mail")
    assert states_of(store) == {"available": 2}


def test_what_holds_for_a_queue_is_set_one_by_one(store: str, command: Command) -> None:
    enqueue(store, "greet", ["a"], queue="mail")
    said = command.text("queues", "set", "mail", "--concurrency", "7", "--per-key", "1")
    assert said == "mail: at most 7 at a time, 1 a key\n"
    command.text("limits", "set", "smtp", "1/s")
    command.text("limits", "set", "tenant {tenant}", "1/s")
    said = command.text("queues", "set", "mail", "--limit", "smtp", "--limit", "tenant {tenant}")
    assert said == "mail: at most 7 at a time, 1 a key, limits smtp, tenant {tenant}\n"
    rules = command.json(
        "queues", "set", "mail", "--concurrency", "none", "--no-limits", "--ageing", "5"
    )
    assert rules == {
        "name": "mail",
        "paused": False,
        "draining": False,
        "concurrency": None,
        "concurrency_per_key": 1,
        "limits": [],
        "ageing_s": 5.0,
    }
    for words, says in {
        (): "there is nothing to change; try mailrace queues set --help",
        ("--concurrency", "0"): "--concurrency is '0'; give 1 or more, or none",
        ("--per-key", "many"): "--per-key is 'many'; give 1 or more, or none",
        ("--limit", "a", "--no-limits"): "--limit and --no-limits are both given; give one of",
        ("--ageing", "0"): "ageing_s of the queue 'mail' is 0",
    }.items():
        assert command.refused("queues", "set", "mail", *words).startswith(says)


def test_limits_that_nobody_has_set_are_named(store: str, command: Command) -> None:
    enqueue(store, "greet", ["a"], queue="mail")
    for name in ("all mail", "of ada"):
        command.text("limits", "set", name, "1/s")
    words = ("--limit", "all mial", "--limit", "all mail", "--limit", "of {tenant}")
    assert command.text("queues", "set", "mail", *words, "--limit", "on {host}") == (
        "mail: limits all mial, all mail, of {tenant}, on {host}\n"
        "there is no limit 'all mial' yet: jobs will wait for it\n"
        "there is no limit 'on {host}' yet: jobs will wait for it\n"
    )
    assert command.text("queues", "set", "mail", "--per-key", "1").count("\n") == 1
    assert "all mial" in command.json("queues", "set", "mail", *words)["limits"]


def test_whoever_waits_for_a_limit_that_is_removed_is_named(store: str, command: Command) -> None:
    enqueue(store, "greet", ["a"], queue="mail")
    for name in ("smtp", "api", "of {tenant}", "of ada", "on web-1"):
        command.text("limits", "set", name, "1/s")
    command.text("queues", "set", "mail", "--limit", "smtp", "--limit", "of {tenant}")
    command.text("queues", "set", "calls", "--limit", "smtp", "--limit", "on {host}")
    assert command.text("limits", "remove", "smtp") == "smtp removed; calls, mail wait for it\n"
    assert command.text("limits", "remove", "api") == "api removed\n"
    # The queue's jobs make it anew.
    assert command.text("limits", "remove", "of ada") == "of ada removed\n"
    assert command.text("limits", "remove", "on web-1") == (
        "on web-1 removed; calls waits for it\n"
    )
    assert command.json("limits", "remove", "of {tenant}") == {
        "removed": "of {tenant}",
        "queues": ["mail"],
    }


def test_a_queue_is_purged_with_yes(store: str, command: Command) -> None:
    enqueue(store, "greet", ["a", "b"], queue="mail")
    enqueue(store, "greet", ["c"], queue="other")
    assert command.refused("queues", "purge", "mail") == (
        "2 jobs would be cancelled, nothing was done yet; add --yes to do it"
    )
    assert command.text("queues", "purge", "mail", "--yes") == "2 jobs of mail cancelled\n"
    assert states_of(store) == {"cancelled": 2, "available": 1}
    assert command.json("queues", "purge", "other") == {"queue": "other", "cancelled": 1}


def test_limits_are_set_listed_and_removed(store: str, command: Command) -> None:
    enqueue(store, "greet", ["a"])
    assert command.text("limits") == "no limits yet\n"
    said = command.text("limits", "set", "smtp", "100/s, 5000/h", "--margin", "0.1", "--adaptive")
    assert said == "smtp: 100/s, 5000/h, 10% kept back, adaptive\n"
    assert command.json("limits", "set", "plain", "1/s")["pace"] == 1.0
    plain, smtp = sorted(command.json("limits"), key=lambda one: one["name"])
    assert (plain["name"], plain["margin"], plain["adaptive"]) == ("plain", 0.0, False)
    assert (smtp["rates"], smtp["margin"], smtp["adaptive"]) == ("100/s, 5000/h", 0.1, True)
    assert any(
        line.split() == ["smtp", "100/s,", "5000/h", "10%", "yes", "100%", "now", "-"]
        for line in command.text("limits").splitlines()
    )
    assert "'fast'" in command.refused("limits", "set", "smtp", "fast")
    for name in ("", " "):
        assert command.refused("limits", "set", name, "5/s") == (
            "the name of the limit is empty; give one that queues can name"
        )
    assert command.text("limits", "remove", "smtp") == "smtp removed\n"
    assert command.refused("limits", "remove", "smtp") == (
        "there is no limit 'smtp'; in this store: plain"
    )


def test_schedules_are_listed_paused_and_removed(store: str, command: Command) -> None:
    async def plan() -> None:
        async with open_queue(store) as opened:
            await opened.schedule(
                "reports", "0 6 * * 1", opened.job("greet", "a"), zone="Europe/Berlin"
            )

    asyncio.run(plan())
    (one,) = command.json("schedules")
    assert (one["cron"], one["zone"], one["paused"]) == ("0 6 * * 1", "Europe/Berlin", False)
    assert command.text("schedules", "pause", "reports") == "reports: paused\n"
    assert command.json("schedules")[0]["paused"] is True
    assert "paused" in command.text("schedules").splitlines()[1]
    assert command.text("schedules", "resume", "reports") == "reports: active\n"
    assert command.refused("schedules", "pause", "other") == (
        "there is no schedule 'other'; in this store: reports"
    )
    assert command.text("schedules", "remove", "reports") == "reports removed\n"
    assert command.text("schedules") == "no schedules yet\n"


def test_a_schedule_that_cannot_be_read_is_named_and_the_others_go_on(
    store: str, command: Command
) -> None:
    async def plan() -> None:
        async with open_queue(store) as opened:
            job = opened.job("greet", "a")
            await opened.schedule("bad", "@every 5m", msgspec.structs.replace(job, lane="express"))
            await opened.schedule("good", "@every 5m", job)

    asyncio.run(plan())
    trouble = "Invalid enum value 'express' - at `$.lane`"
    said = (
        f"the schedule 'bad' cannot be read: {trouble};"
        " use the version that made it, make it again, or remove it"
    )
    heads, row, empty, line = command.text("schedules").splitlines()
    assert (heads.split()[0], row.split()[0], empty, line) == ("schedule", "good", "", said)
    bad, good = command.json("schedules")
    assert (bad["name"], bad["job"], bad["trouble"]) == ("bad", None, trouble)
    assert (good["name"], good["job"]["kind"], good["trouble"]) == ("good", "greet", "")

    assert command.text("schedules", "pause", "good") == "good: paused\n"
    assert command.text("schedules", "resume", "good") == "good: active\n"
    assert command.refused("schedules", "pause", "bad") == said
    assert command.refused("schedules", "pause", "other").endswith("in this store: bad, good")
    assert command.text("schedules", "remove", "good") == "good removed\n"
    assert command.text("schedules") == f"{said}\n"
    assert command.text("schedules", "remove", "bad") == "bad removed\n"
    assert command.text("schedules") == "no schedules yet\n"


def test_looking_makes_no_store(folder: Path, command: Command) -> None:
    for words in (
        ["queues"],
        ["queues", "pause", "mail"],
        ["limits"],
        ["limits", "set", "a", "1/s"],
        ["schedules"],
    ):
        assert command.refused(*words).startswith("there is no store at mailrace.db")
    assert list(folder.iterdir()) == []
