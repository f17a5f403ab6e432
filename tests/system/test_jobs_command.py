"""`mailrace jobs`: looking at jobs and deciding about them, on either store."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mailrace.jobs import Cancel, Handlers, open_queue
from tests.system.workbench import Command, enqueue, jobs_of, states_of, work_off

pytestmark = pytest.mark.usefixtures("folder")
handlers = Handlers()


@handlers.register("greet")
async def greet(name: str) -> str:
    return f"hello {name}"


@handlers.register("refuse", retry="none")
async def refuse(name: str) -> None:
    raise ConnectionError(f"nobody answers {name}")


@handlers.register("odd", retry="none")
async def odd(name: str) -> Cancel:
    return Cancel(reason="not wanted")


def ids(rows: list[dict[str, Any]]) -> list[int]:
    return [row["id"] for row in rows]


def test_every_filter(store: str, command: Command) -> None:
    plain = enqueue(store, "greet", ["ada", "bo"])
    (mail,) = enqueue(store, "refuse", ["cy"], queue="mail", tenant="acme", tags=("vip",))
    work_off(store, handlers)
    (later,) = enqueue(store, "greet", ["dan"], delay=timedelta(hours=1))

    everything = [later, mail, *reversed(plain)]
    assert ids(command.json("jobs", "list")) == everything
    for words, expected in {
        ("--state", "completed"): [*reversed(plain)],
        ("--state", "failed", "--state", "scheduled"): [later, mail],
        ("--queue", "mail"): [mail],
        ("--kind", "refuse"): [mail],
        ("--tenant", "acme"): [mail],
        ("--tag", "vip"): [mail],
        ("--category", "network"): [mail],
        ("--category", "data"): [],
        ("--reason", "ConnectionError"): [mail],
        ("--text", "ANSWERS cy"): [mail],
        ("--text", "AD"): [plain[0]],
        ("--older", "0s"): [mail, *reversed(plain)],
        ("--older", "1h"): [],
        ("--queue", "mail", "--kind", "greet"): [],
    }.items():
        assert ids(command.json("jobs", "list", *words)) == expected, words
    assert ids(command.json("jobs", "list", "--limit", "2")) == everything[:2]
    assert ids(command.json("jobs", "list", "--before", str(mail))) == everything[2:]

    text = command.text("jobs", "list", "--limit", "2")
    assert text.splitlines()[0].split() == [
        "job",
        "state",
        "kind",
        "queue",
        "attempt",
        "when",
        "why",
    ]
    assert "[network] ConnectionError: nobody answers cy" in text
    assert text.endswith(f"there may be more: --before {mail}\n")
    assert command.text("jobs", "list", "--queue", "nowhere") == "no such jobs\n"


def test_a_batch_by_name_or_number(store: str, command: Command) -> None:
    async def fill() -> tuple[int, int]:
        async with open_queue(store) as opened:
            await opened.enqueue("greet", "outside")
            async with opened.batch("spring") as batch:
                job = await opened.enqueue("greet", "inside", batch_id=batch.id)
            return batch.id, job.id

    batch, job = asyncio.run(fill())
    assert ids(command.json("jobs", "list", "--batch", "spring")) == [job]
    assert ids(command.json("jobs", "list", "--batch", str(batch))) == [job]
    assert command.refused("jobs", "list", "--batch", "summer") == (
        "there is no batch 'summer'; in this store: spring"
    )


def test_a_job_in_full(store: str, command: Command) -> None:
    (job,) = enqueue(store, "greet", ["ada"], key="k7", tags=("vip", "new"))
    (failed,) = enqueue(store, "refuse", ["bo"])
    work_off(store, handlers)
    found = command.json("jobs", "show", str(job))
    assert (found["row"]["state"], found["payload"], found["result"]) == (
        "completed",
        "ada",
        "hello ada",
    )
    text = command.text("jobs", "show", str(job))
    assert text.startswith(f"job {job}: completed\n")
    for line in ('payload     "ada"', 'result      "hello ada"', "key         k7", "vip, new"):
        assert line in text
    text = command.text("jobs", "show", str(failed))
    assert "why         [network] ConnectionError: nobody answers bo" in text
    assert "attempts that did not end well:" in text
    assert command.refused("jobs", "show", "999999").startswith("there is no job 999999")


def test_a_sealed_payload_is_shown_to_those_with_the_key(
    store: str, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = "k1:" + "A" * 43 + "="
    (job,) = enqueue(store, "greet", ["ada"], keys=keys)
    assert command.json("jobs", "show", str(job))["payload"]["key"] == "k1"
    monkeypatch.setenv("MAILRACE_KEYS", keys)
    assert command.json("jobs", "show", str(job))["payload"] == "ada"


def test_dead_letters_and_their_groups(store: str, command: Command) -> None:
    enqueue(store, "greet", ["ada"])
    enqueue(store, "refuse", ["a", "b", "c"])
    enqueue(store, "odd", ["d"])
    work_off(store, handlers)
    assert {row["state"] for row in command.json("jobs", "dead")} == {"failed", "cancelled"}
    assert len(command.json("jobs", "dead", "--kind", "refuse")) == 3
    groups = command.json("jobs", "stats")
    assert [(one["jobs"], one["state"], one["kind"], one["reason"]) for one in groups] == [
        (3, "failed", "refuse", "ConnectionError"),
        (1, "cancelled", "odd", "not wanted"),
    ]
    assert "3  failed" in command.text("jobs", "stats")
    assert command.text("jobs", "stats", "--kind", "greet") == "no dead letters\n"


def test_one_job_is_changed_at_once_and_more_only_with_yes(store: str, command: Command) -> None:
    failed = enqueue(store, "refuse", ["a", "b", "c"])
    work_off(store, handlers)
    assert command.text("jobs", "retry", str(failed[0])) == "1 job retried\n"
    assert states_of(store) == {"available": 1, "failed": 2}
    assert command.refused("jobs", "retry", "--kind", "refuse") == (
        "2 jobs would be retried, nothing was done yet; add --yes to do it"
    )
    assert states_of(store) == {"available": 1, "failed": 2}
    assert command.json("jobs", "retry", "--kind", "refuse", "--yes") == {
        "action": "retry",
        "meant": 2,
        "changed": 2,
        "running": 0,
    }
    assert states_of(store) == {"available": 3}


def test_waiting_jobs_get_another_time_or_are_cancelled_and_ended_ones_removed(
    store: str, command: Command
) -> None:
    jobs = [str(job) for job in enqueue(store, "greet", ["a", "b", "c"])]
    assert command.text("jobs", "reschedule", *jobs[:2], "--delay", "2h", "--yes") == (
        "2 jobs rescheduled\n"
    )
    assert states_of(store) == {"scheduled": 2, "available": 1}
    rows = {str(row.id): row for row in jobs_of(store)}
    wait_s = (rows[jobs[0]].run_at_ms - rows[jobs[2]].run_at_ms) / 1000
    assert 7190 < wait_s < 7300
    assert command.text("jobs", "cancel", "--state", "scheduled", "--yes").startswith("2 jobs")
    assert states_of(store) == {"cancelled": 2, "available": 1}
    assert command.refused("jobs", "delete", *jobs, "--yes") == (
        f"job {jobs[2]} is available and cannot be deleted; that takes a job that is completed,"
        " failed, cancelled, expired, uncertain"
    )
    assert command.json("jobs", "delete", *jobs[:2], "--yes")["changed"] == 2
    assert states_of(store) == {"available": 1}


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_changes_go_through_any_number_of_pages(
    store: str, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    enqueue(store, "greet", [str(n) for n in range(2345)])
    assert command.refused("jobs", "cancel", "--queue", "default").startswith("2,345 jobs would")
    assert command.json("jobs", "reschedule", "--queue", "default", "--delay", "1h", "--yes") == {
        "action": "reschedule",
        "meant": 2345,
        "changed": 2345,
        "running": 0,
    }
    assert command.json("jobs", "cancel", "--queue", "default", "--yes")["changed"] == 2345


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("retry",), "it is not said which jobs are to be retried; give their numbers"),
        (("retry", "77"), "there is no job 77; it may have been removed by its age"),
        (("retry", "1"), "job 1 is available and cannot be retried; that takes a job that is fail"),
        (("retry", "--state", "running"), "a job that is running cannot be retried; give --state"),
        (("delete", "--state", "available"), "a job that is available cannot be deleted"),
        (("cancel", "one"), "Invalid value"),
        (("reschedule", "1"), "mailrace jobs reschedule needs --delay"),
        (("reschedule", "1", "--delay", "soon"), "--delay is 'soon'; write it like 30s, 5m"),
        (("list", "--older", "1w"), "--older is '1w'; write it like 30s, 5m, 12h or 7d"),
        (("list", "--limit", "0"), "--limit is 0; give 1 to 10000"),
        (("list", "--state", "fail"), 'Invalid value "fail" for --state. Choose from:'),
        (("list", "more"), "'more' is one word too many"),
        (("nothing",), "Unknown command"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    store: str, command: Command, words: tuple[str, ...], says: str
) -> None:
    enqueue(store, "greet", ["ada"])
    assert command.refused("jobs", *words).startswith(says)
    assert states_of(store) == {"available": 1}


def test_looking_makes_no_store(folder: Path, command: Command) -> None:
    for words in (["list"], ["dead"], ["stats"], ["show", "1"], ["retry", "1"]):
        assert command.refused("jobs", *words) == (
            "there is no store at mailrace.db;"
            " give --store sqlite:///PATH, or make one with mailrace migrate"
        )
    assert list(folder.iterdir()) == []


def test_looking_makes_no_tables(postgres_dsn: str, command: Command) -> None:
    for _ in range(2):
        said = command.refused("jobs", "list", "--store", postgres_dsn)
        assert said.startswith("there is no store in postgresql://")
        assert said.endswith("; make one with mailrace migrate")
    assert command.refused("status", "--store", postgres_dsn).startswith("there is no store in")
