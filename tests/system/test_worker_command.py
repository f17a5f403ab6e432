"""`mailrace worker`: works jobs off, and leaves none behind however it ends."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from mailrace.cli.duties import keeping, weights
from mailrace.cli.handlers import load_handlers
from mailrace.errors import MisuseError
from mailrace.jobs import JobState, open_queue
from tests.support.command import run
from tests.system.workbench import (
    WorkerProcess,
    enqueue,
    jobs_of,
    lines_of,
    restart,
    states_of,
    until_lines,
    write_tasks,
)

KEYS = "k1:" + "A" * 43 + "="


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_tasks(tmp_path)
    return tmp_path


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest) -> str:
    if request.param == "postgres":
        dsn: str = request.getfixturevalue("postgres_dsn")
        return dsn
    return "sqlite:///mailrace.db"


@pytest.fixture
def journals(folder: Path) -> dict[str, str]:
    """The variable that keeps journals where the test ends."""
    return {"MAILRACE_JOURNALS": str(folder / "journals")}


def test_it_works_off_what_is_there_and_drains_at_a_signal(
    folder: Path, store: str, journals: dict[str, str]
) -> None:
    """What is under way ends, and what was only claimed goes back without an attempt."""
    enqueue(store, "note", [str(n) for n in range(100)], priority=1)
    enqueue(store, "hold", ["a", "b", "c"])
    with WorkerProcess(
        folder, "--store", store, "--concurrency", "1", "--verbose", **journals
    ) as worker:
        started = worker.until("working")
        assert started["kinds"] == ["note", "hold", "insist", "sit", "refuse"]
        assert (started["concurrency"], started["pid"]) == (1, worker.process.pid)
        assert "://" in started["store"]
        assert ":" not in started["store"].partition("://")[2].partition("@")[0]
        until_lines(folder / "held.txt", 1)
        worker.terminate()
        assert worker.until("draining")["in_hand"] == 1
        (folder / "go").touch()
        assert worker.until_end() == 0
        ended = worker.log[-1]
        assert (ended["event"], ended["attempts"], ended["completed"]) == ("ended", 101, 101)
        attempts = [line for line in worker.log if line["event"] == "completed"]
        assert [line["kind"] for line in attempts] == ["note"] * 100 + ["hold"]
    assert sorted(map(int, lines_of(folder / "noted.txt"))) == list(range(100))
    assert states_of(store) == {"completed": 101, "available": 2}
    assert [row.attempt for row in jobs_of(store) if row.state is JobState.AVAILABLE] == [0, 0]


def test_what_takes_longer_than_the_grace_goes_back(folder: Path) -> None:
    enqueue("sqlite:///mailrace.db", "hold", ["a"])
    with WorkerProcess(folder, "--grace", "0.1") as worker:
        until_lines(folder / "held.txt", 1)
        worker.terminate()
        assert worker.until_end() == 0
    assert states_of("sqlite:///mailrace.db") == {"available": 1}


def test_a_second_signal_ends_it_at_once(folder: Path) -> None:
    enqueue("sqlite:///mailrace.db", "hold", ["a"])
    with WorkerProcess(folder, "--grace", "600") as worker:
        until_lines(folder / "held.txt", 1)
        worker.terminate()
        worker.until("draining", in_hand=1)
        worker.signal_again(signal.SIGINT)
        assert worker.until_end() == 0
        assert worker.log[-1]["event"] == "ended"
    assert states_of("sqlite:///mailrace.db") == {"available": 1}


@pytest.mark.parametrize(
    ("kind", "code", "state"), [("sit", 0, "available"), ("insist", 3, "running")]
)
def test_a_second_signal_ends_it_whatever_a_handler_does(
    folder: Path, kind: str, code: int, state: str
) -> None:
    """A job of which that is not known stays with the process that is gone, to be rescued."""
    enqueue("sqlite:///mailrace.db", kind, ["a"])
    with WorkerProcess(folder) as worker:
        until_lines(folder / "held.txt", 1)
        worker.terminate()
        worker.until("draining")
        worker.signal_again(signal.SIGTERM)
        assert worker.until_end() == code
    assert states_of("sqlite:///mailrace.db") == {state: 1}


def test_an_order_to_restart_shows_in_the_exit_code(folder: Path) -> None:
    enqueue("sqlite:///mailrace.db", "note", ["a"])
    with WorkerProcess(folder) as worker:
        until_lines(folder / "noted.txt", 1)
        (answer,) = restart("sqlite:///mailrace.db")
        assert answer.done
        assert worker.until_end() == 75


def test_a_restart_leaves_behind_what_does_not_let_itself_be_ended(folder: Path) -> None:
    """Nobody would put another one in its place while it is there."""
    enqueue("sqlite:///mailrace.db", "sit", ["a"])
    enqueue("sqlite:///mailrace.db", "insist", ["b"])
    with WorkerProcess(folder, "--grace", "0.1") as worker:
        until_lines(folder / "held.txt", 2)
        restart("sqlite:///mailrace.db")
        assert worker.until_end() == 75
        assert worker.log[-1]["event"] == "ended"


def test_only_the_queues_that_were_named(folder: Path) -> None:
    """From the environment, as a service manager gives them."""
    enqueue("sqlite:///mailrace.db", "note", ["mine"], queue="mine")
    enqueue("sqlite:///mailrace.db", "note", ["other"], queue="other")
    with WorkerProcess(folder, MAILRACE_QUEUES="mine:2,odd", MAILRACE_VERBOSE="on") as worker:
        worker.until("completed", queue="mine")
        worker.terminate()
        assert worker.until_end() == 0
    assert lines_of(folder / "noted.txt") == ["mine"]


def test_a_process_that_is_killed_is_replaced(
    folder: Path, store: str, journals: dict[str, str]
) -> None:
    """Its job is done by another one; and no key stands in a command line."""
    enqueue(store, "hold", ["a"], keys=KEYS)
    with WorkerProcess(
        folder, "--store", store, "--processes", "2", "--keys", KEYS, **journals
    ) as supervisor:
        assert supervisor.until("supervising")["processes"] == 2
        children = {supervisor.until("process started")["process"] for _ in range(2)}
        for pid in children:
            assert "k1:" not in Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8")
        until_lines(folder / "held.txt", 1)
        (process_id,) = [row.process_id for row in jobs_of(store)]
        victim = pid_of(store, process_id)
        assert victim in children
        os.kill(victim, signal.SIGKILL)
        died = supervisor.until("process died", process=victim)
        assert died["why"] == "killed by SIGKILL"
        again = supervisor.until("process started", place=died["place"])["process"]
        assert again not in children
        assert until_lines(folder / "held.txt", 2) == ["a", "a"]
        (folder / "go").touch()
        enqueue(store, "note", ["after"], keys=KEYS)
        until_lines(folder / "noted.txt", 1)
        supervisor.terminate()
        assert supervisor.until_end() == 0
        assert supervisor.log[-1]["event"] == "supervisor ended"
    assert states_of(store) == {"completed": 2}
    assert {row.deaths for row in jobs_of(store)} == {0, 1}


def test_processes_end_when_their_supervisor_is_killed(folder: Path) -> None:
    with WorkerProcess(folder, "--processes", "2") as supervisor:
        for _ in range(2):
            supervisor.until("working")
        supervisor.process.send_signal(signal.SIGKILL)
        assert supervisor.until_end() == -signal.SIGKILL
        gone = [line for line in supervisor.log if line["event"].startswith("the supervisor is")]
        ended = [line for line in supervisor.log if line["event"] == "ended"]
        assert (len(gone), len(ended)) == (2, 2)


def pid_of(store: str, process_id: int | None) -> int:
    found: list[int] = []

    async def look() -> None:
        async with open_queue(store) as opened:
            found.extend(row.pid for row in await opened.store.processes() if row.id == process_id)

    asyncio.run(look())
    return found[0]


@pytest.mark.parametrize(
    ("app", "says"),
    [
        ("tasks", "'tasks' names no handlers; write it like tasks:handlers"),
        ("tasks:", "'tasks:' names no handlers"),
        ("tasks:a b", "'tasks:a b' names no handlers"),
        (":handlers", "':handlers' names no handlers"),
        ("nowhere:handlers", "there is no module 'nowhere'; it is looked for in"),
        ("tasks.deep:handlers", "there is no module 'tasks.deep'"),
        ("tasks:handler", "the module 'tasks' has no 'handler'; there is tasks:handlers"),
        ("tasks:number", "tasks:number is an int, no Handlers; there is tasks:handlers"),
        ("tasks:handlers.nope", "the module 'tasks' has no 'handlers.nope'"),
        ("tasks:empty", "tasks:empty has no kinds"),
        ("lost:handlers", "the module 'lost' cannot be imported: ModuleNotFoundError: No module"),
        ("broken:handlers", "'broken' cannot be imported: ZeroDivisionError: division by zero"),
        ("wrong:handlers", "'wrong' cannot be imported: SyntaxError"),
        ("leaves:handlers", "'leaves' cannot be imported: SystemExit: 3"),
        ("bare:handlers", "there are no Handlers in it; write it like tasks:handlers"),
    ],
)
def test_handlers_that_cannot_be_had(
    folder: Path, monkeypatch: pytest.MonkeyPatch, app: str, says: str
) -> None:
    for name, text in {
        "lost": "import no_such_thing",
        "broken": "def f():\n    1 / 0\n\n\nf()",
        "wrong": "def f(:",
        "leaves": "raise SystemExit(3)",
        "bare": "",
    }.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.setattr(sys, "path", sys.path.copy())
    name = app.partition(":")[0]
    try:
        with pytest.raises(MisuseError) as raised:
            load_handlers(app)
    finally:
        sys.modules.pop(name, None)
        sys.modules.pop("tasks", None)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)
    if name in {"lost", "broken", "wrong"}:
        line = 5 if name == "broken" else 1
        assert str(raised.value).endswith(f"look at {folder / name}.py, line {line}")


def test_mistakes_are_said_before_a_store_is_made(folder: Path) -> None:
    done = run("worker", "tasks:nothing", cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "mailrace: the module 'tasks' has no 'nothing'; there is tasks:handlers, tasks:empty\n"
    )
    for words, says in {
        ("--queue", "a:0"): "--queue is 'a:0'; write it like mail or mail:3",
        ("--queue", "mail:x"): "--queue is 'mail:x'; write it like mail or mail:3; a name with",
        ("--target", "fast"): "--target is 'fast'; write it like 10000/h",
        ("--target", "9/h", "--processes", "1"): "--processes is 1; give 2 to 10, or leave it",
        ("--keep", "failed=soon"): "keep for failed is 'soon'; write it like",
        ("--keys", "secret"): "sealing key 1 has no colon",
        ("--sealed-only",): "sealed_only is set, and there are no keys; give keys; commands take",
        ("--min", "3", "--max", "2"): "--min 3 and --max 2; give 1 <= min <= max",
        ("--processes", "9", "--max", "2"): "--processes is 9; give 1 to 2, or leave it out",
        ("--store", "mysql://x"): "'mysql://x' is not a store",
        ("--redis", "localhost"): "'localhost' is no address of a Redis; write redis, or",
        ("--redis", "localhost", "--processes", "2"): "'localhost' is no address of a Redis; write",
    }.items():
        done = run("worker", "tasks:handlers", *words, cwd=folder)
        assert done.returncode == 2
        assert done.stderr.startswith(f"mailrace: {says}"), done.stderr
        assert done.stderr.count("\n") == 1
    assert not (folder / "mailrace.db").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("*", {"*": 1.0}),
        ("mail:3, reports", {"mail": 3.0, "reports": 1.0}),
        ("batch:x:1", {"batch:x": 1.0}),
        ("batch:7:0.5", {"batch:7": 0.5}),
    ],
)
def test_queues_and_their_weights(text: str, expected: dict[str, float]) -> None:
    assert weights(text) == expected


@pytest.mark.parametrize(
    "text", ["", "a,,b", "a:0", "a:-1", "a:nan", "a,a:2", ":3", "mail:x", "a:b:", "a:"]
)
def test_queues_that_are_none(text: str) -> None:
    with pytest.raises(MisuseError):
        weights(text)


def test_how_long_jobs_are_kept() -> None:
    kept = keeping("completed=12h, failed=forever")
    assert kept[JobState.COMPLETED] == 12 * 3600
    assert JobState.FAILED not in kept
    assert kept[JobState.UNCERTAIN] == keeping("")[JobState.UNCERTAIN]
    for text in ("done=7d", "failed", "failed=", "running=7d", "failed=1d 2d"):
        with pytest.raises(MisuseError):
            keeping(text)
