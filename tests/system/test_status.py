"""`mailrace status`: the numbers always add up."""

import signal
import threading
from pathlib import Path

import pytest

from mailrace.cli import main
from mailrace.queue import JobState
from tests.support.command import loads, run, send_words, start, write_campaign
from tests.support.recording import RecordingServer


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.delenv("MAILRACE_STORE", raising=False)
    return tmp_path


def answer(address: str) -> str:
    name = address.partition("@")[0]
    return {"no": "550 5.1.1 nobody", "later": "450 4.2.1 later"}.get(name, "250 2.1.5 ok")


def test_every_state_with_its_count(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_campaign(folder, [f"{name}@example.net" for name in ("ada", "bo", "no", "later")])
    with RecordingServer(answer=answer) as server:
        run(*send_words(server.url, "--no-wait", "--retry", "1h"), cwd=folder)
    assert main(["status", "people", "--json"]) == 0
    (one,) = loads(capsys.readouterr().out)
    assert set(one["states"]) == set(JobState)
    assert {state: count for state, count in one["states"].items() if count} == {
        "completed": 2,
        "failed": 1,
        "retryable": 1,
    }
    assert (one["campaign"], one["people"]) == ("people", 4)
    assert one["first"] <= one["last"] < one["next_try"]
    assert one["rate"] > 0
    reasons = {(why["state"], why["reason"], why["jobs"]) for why in one["reasons"]}
    assert reasons == {("failed", "550 5.1.1", 1), ("retryable", "450 4.2.1", 1)}

    assert main(["status"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("people: 4 people\n")
    assert "\n         2  completed\n         1  failed\n         0  uncertain\n" in text
    assert "\n  next try " in text
    assert "         1  failed: 550 5.1.1 nobody" in text


def test_all_campaigns_or_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_campaign(folder, ["ada@example.net"])
    for name in ("spring", "summer"):
        run(*send_words("sandbox:outbox", "--campaign", name), cwd=folder)
    assert main(["status", "--json"]) == 0
    assert [one["campaign"] for one in loads(capsys.readouterr().out)] == ["summer", "spring"]
    assert main(["status", "winter"]) == 2
    assert capsys.readouterr().err == (
        "mailrace: there is no campaign 'winter'; in this store: summer, spring\n"
    )


def test_the_counts_add_up_during_a_run_and_after_a_kill(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Looked at ten times while a server takes the mail, then after SIGKILL, then at the end."""

    def look() -> dict[str, int]:
        assert main(["status", "people", "--json"]) == 0
        (one,) = loads(capsys.readouterr().out)
        states: dict[str, int] = one["states"]
        assert sum(states.values()) == one["people"] == 300
        return states

    write_campaign(folder, [f"person{n}@example.net" for n in range(300)])
    ready, go_on = threading.Semaphore(0), threading.Semaphore(0)

    def pause(total: int) -> None:
        if total % 20 == 0 and total <= 200:
            ready.release()
            go_on.acquire()

    with RecordingServer(on_message=pause) as server:
        process = start(*send_words(server.url), cwd=folder)
        done = []
        for _ in range(10):
            assert ready.acquire(timeout=30)
            states = look()
            done.append(states["completed"])
            assert states["running"] > 0
            go_on.release()
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed = look()
        assert done == sorted(done)
        last = run(*send_words(server.url), cwd=folder)
        assert last.returncode in {0, 1}, last.stderr
        ended = look()
    assert killed["completed"] >= done[-1]
    assert ended["completed"] + ended["uncertain"] == 300
    assert ended["uncertain"] <= 5
