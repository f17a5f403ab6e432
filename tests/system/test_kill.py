"""SIGKILL at any moment: nobody is skipped, and nobody who was acknowledged gets it twice."""

import os
import random
import signal
import threading
from pathlib import Path

import pytest

from tests.support.command import loads, run, send_words, start, states, write_campaign
from tests.support.recording import RecordingServer

PEOPLE = 4000
KILLS = int(os.environ.get("MAILRACE_TEST_KILLS", "16"))
SEED = random.SystemRandom().randrange(1 << 32)


def addresses() -> list[str]:
    return [f"{'refused' if n % 50 == 7 else 'person'}{n}@example.net" for n in range(PEOPLE)]


def answer(address: str) -> str:
    return "550 5.1.1 nobody here" if address.startswith("refused") else "250 2.1.5 ok"


class Trigger:
    """Fires when the server has taken so many more messages."""

    def __init__(self) -> None:
        self._at = -1
        self._seen = 0
        self.fired = threading.Event()

    def arm(self, more: int) -> None:
        self.fired.clear()
        self._at = self._seen + more

    def __call__(self, total: int) -> None:
        self._seen = total
        if total == self._at:
            self.fired.set()


def run_and_kill(folder: Path, via: str, chance: random.Random, trigger: Trigger) -> None:
    """Runs the command and kills it: early by the clock, or after some messages were taken."""
    trigger.arm(chance.randrange(1, 2 * PEOPLE // KILLS))
    process = start(*send_words(via, "--workers", "8"), cwd=folder)
    try:
        if chance.random() < 0.25:
            trigger.fired.wait(chance.uniform(0.0, 0.8))
        else:
            while process.poll() is None and not trigger.fired.wait(0.02):
                pass
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize("chunking", [True, False], ids=["bdat", "data"])
def test_kill_at_random_moments(tmp_path: Path, *, chunking: bool) -> None:
    chance = random.Random(SEED)
    trigger = Trigger()
    write_campaign(tmp_path, addresses())
    with RecordingServer(chunking=chunking, answer=answer, on_message=trigger) as server:
        for _ in range(KILLS):
            run_and_kill(tmp_path, server.url, chance, trigger)
        last = run(*send_words(server.url, "--workers", "8"), cwd=tmp_path)
        assert last.returncode == 1, (SEED, last.stderr)
        received = server.recorded.messages
        ended = states(tmp_path / "mailrace.db")
        by_state = {state: {a for a in ended if ended[a] == state} for state in ended.values()}
        uncertain = by_state.get("uncertain", set())

        assert len(ended) == PEOPLE, SEED
        assert set(by_state) <= {"completed", "failed", "uncertain"}, (SEED, set(by_state))
        refused = {a for a in addresses() if a.startswith("refused")}
        assert by_state["failed"] <= refused <= by_state["failed"] | uncertain, SEED
        assert by_state["completed"] <= set(received), SEED
        assert [a for a in received if len(received[a]) > 1] == [], SEED
        assert set(received) - by_state["completed"] <= uncertain, SEED
        told = loads(run("status", "people", "--json", cwd=tmp_path).stdout)[0]
        assert sum(told["states"].values()) == told["people"] == PEOPLE, SEED

        again = run(*send_words(server.url, "--resend-uncertain"), cwd=tmp_path)
        assert again.returncode == 1, (SEED, again.stderr)
        assert {a for a in received if len(received[a]) > 1} <= uncertain, SEED
        assert all(len(set(ids)) == 1 for ids in received.values()), SEED
        assert set(states(tmp_path / "mailrace.db").values()) == {"completed", "failed"}, SEED
    assert list((tmp_path / "mailrace.db.journals").iterdir()) == [], SEED
