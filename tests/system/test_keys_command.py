"""`mailrace keys` and `mailrace keys reseal`, on either store."""

import asyncio
import base64
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mailrace.cli import main
from mailrace.errors import MisuseError
from mailrace.events import Events
from mailrace.jobs import Handlers, JobFilter, open_queue, open_worker
from mailrace.queue import Attempted
from mailrace.queue.sealing import Sealer, key_of
from tests.queue.houses import all_payloads
from tests.support.command import arguments, environment, loads, run, send_words, write_campaign
from tests.support.recording import RecordingServer
from tests.system.workbench import PATIENCE_S, Command, enqueue

pytestmark = pytest.mark.usefixtures("folder")


def written(name: str, filling: bytes) -> str:
    return f"{name}:{base64.b64encode(filling * 32).decode()}"


OLD = written("2026a", b"o")
NEW = written("2026b", b"n")
LOST = written("2025z", b"l")
BOTH = f"{NEW},{OLD}"
MANY = 20_000


async def _payloads(store: str) -> list[tuple[int, str, bytes]]:
    async with open_queue(store) as queue:
        found = await all_payloads(queue.store)
    return [(one.id, one.kind, bytes(one.payload)) for one in found]


def meanings(store: str, keys: str) -> dict[int, Any]:
    """What every job's handler would be given."""
    sealer = Sealer.parse(keys)
    return {
        number: msgspec.json.decode(sealer.open(payload, about=kind.encode()))
        for number, kind, payload in asyncio.run(_payloads(store))
    }


def test_a_key_is_replaced_from_the_first_to_the_last_command(
    store: str,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = enqueue(store, "greet", ["ada", "bo", "cy"], keys=OLD)
    monkeypatch.setenv("MAILRACE_KEYS", BOTH)
    (new, old) = command.json("keys")
    assert (new["key"], new["use"], new["waiting"]) == ("2026b", "seals", 0)
    assert (old["key"], old["use"], old["waiting"], old["unopened"]) == ("2026a", "opens", 3, 0)
    heads, first, second = command.text("keys").splitlines()
    assert heads.split()[:2] == ["key", "use"]
    assert heads.endswith("cannot open")
    assert first.split() == ["2026b", "seals", "0", "0", "0", "0", "0"]
    assert second.split() == ["2026a", "opens", "3", "0", "0", "0", "0"]

    said = command.refused("keys", "reseal")
    assert said.startswith("up to 3 payloads would be sealed anew, nothing was done yet")
    assert set(meanings(store, OLD)) == set(made)
    assert main(["keys", "reseal", "--yes"]) == 0
    assert capsys.readouterr().out == "3 payloads sealed anew, with 2026b\n"
    assert main(["keys", "reseal"]) == 0
    assert capsys.readouterr().out == "0 payloads sealed anew, with 2026b\n"
    monkeypatch.setenv("MAILRACE_KEYS", NEW)
    assert [row["unopened"] for row in command.json("keys")] == [0]
    assert meanings(store, NEW) == dict(zip(made, ["ada", "bo", "cy"], strict=True))


def test_what_cannot_be_opened_is_named_and_no_secret_is(
    store: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MAILRACE_KEYS", BOTH)
    lost = enqueue(store, "greet", ["sesame"] * 12, keys=LOST)
    enqueue(store, "greet", ["sesame"], keys=OLD)
    plain = enqueue(store, "greet", ["sesame"])
    assert main(["keys", "reseal"]) == 1  # one payload needs no --yes
    text = capsys.readouterr().out
    assert text.startswith("1 payload sealed anew, with 2026b\n12 cannot be opened")
    assert f"\n  job {lost[0]}: the payload is sealed with the key '2025z'" in text
    assert text.count("\n  job ") == 10
    assert "1 not sealed, and left so: --plain seals them" in text
    assert main(["keys", "reseal", "--plain", "--json"]) == 1
    done = loads(capsys.readouterr().out)
    assert (done["resealed"], done["unopened"], done["plain"]) == (1, 12, 0)
    assert main(["keys"]) == 0
    text += capsys.readouterr().out
    assert "plain" not in text.split("--plain seals them")[1]
    for secret in (key.partition(":")[2] for key in (OLD, NEW, LOST)):
        assert secret not in text + repr(done)
    assert "sesame" not in text + repr(done)
    assert plain[0] in meanings(store, f"{BOTH},{LOST}")


def test_without_keys_they_can_be_listed_and_nothing_more(
    store: str, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MAILRACE_KEYS", raising=False)
    assert command.refused("keys").startswith("there is no store")
    asyncio.run(_payloads(store))
    assert command.text("keys") == "no payloads yet\n"
    enqueue(store, "greet", ["ada"], keys=OLD)
    enqueue(store, "greet", ["bo"])
    (sealed, plain) = command.json("keys")
    assert (sealed["key"], sealed["use"], sealed["unopened"]) == ("2026a", "missing", 1)
    assert (plain["key"], plain["use"], plain["unopened"]) == (None, "plain", 0)
    enqueue(store, "greet", ["cy", "di"])
    for words in (["--yes"], ["--plain"], []):
        assert command.refused("keys", "reseal", *words) == (
            "there are no keys to seal with; set MAILRACE_KEYS, the newest first"
        )


def test_plain_payloads_are_not_sealed_where_only_sealed_ones_are_taken(
    store: str, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAILRACE_KEYS", NEW)
    monkeypatch.setenv("MAILRACE_SEALED_ONLY", "on")
    (first, _) = enqueue(store, "greet", ["ada", "bo"])
    for words in (["--plain"], ["--plain", "--yes"]):
        said = command.refused("keys", "reseal", *words)
        assert said.startswith("only sealed payloads are taken")
    (seals, plain) = command.json("keys")
    assert (seals["use"], plain["use"], plain["unopened"]) == ("seals", "plain", 2)
    monkeypatch.setenv("MAILRACE_SEALED_ONLY", "off")
    assert command.json("keys", "reseal", "--plain", "--yes")["resealed"] == 2
    assert meanings(store, NEW)[first] == "ada"


def test_one_that_is_killed_in_the_middle_leaves_nothing_that_does_not_open(
    store: str, folder: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = dict(enumerate(enqueue(store, "greet", map(str, range(MANY)), keys=OLD)))
    process = subprocess.Popen(
        arguments("keys", "reseal", "--yes", "--store", store),
        cwd=folder,
        env=environment() | {"MAILRACE_KEYS": BOTH},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        asyncio.run(_until_begun(store))
    finally:
        process.kill()
    assert process.wait(PATIENCE_S) == -signal.SIGKILL
    assert meanings(store, BOTH) == {number: str(text) for text, number in made.items()}
    sorts = {key_of(payload) for _, _, payload in asyncio.run(_payloads(store))}
    assert sorts == {"2026a", "2026b"}
    monkeypatch.setenv("MAILRACE_KEYS", BOTH)
    done = command.json("keys", "reseal", "--yes")
    assert 0 < done["resealed"] < MANY
    assert meanings(store, NEW) == {number: str(text) for text, number in made.items()}


async def _until_begun(store: str) -> None:
    until_s = time.monotonic() + PATIENCE_S
    async with open_queue(store) as queue:
        while time.monotonic() < until_s:
            (first,) = await queue.store.payloads(0, limit=1)
            if key_of(bytes(first.payload)) == "2026b":
                return
    raise AssertionError("it never began")


def test_a_campaign_goes_on_after_its_store_was_sealed_anew(
    folder: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_campaign(folder, ["ada@example.net", "bo@example.net"])
    answers = iter(["450 4.2.1 later"])
    with RecordingServer(answer=lambda _: next(answers, "250 2.1.5 ok")) as server:
        words = send_words(server.url, "--retry", "1s", "--no-wait")
        assert "waiting 1" in run(*words, cwd=folder).stdout
        monkeypatch.setenv("MAILRACE_KEYS", NEW)
        done = command.json("keys", "reseal", "--plain", "--yes")
        assert (done["resealed"], done["plain"], done["campaign"]) == (0, 2, 2)
        sent = run(*send_words(server.url, "--retry", "1s"), cwd=folder)
        assert sent.returncode == 0, sent.stderr
    assert "sent 2   failed 0   waiting 0" in sent.stdout


def test_a_worker_that_takes_only_sealed_payloads_fails_the_others(store: str) -> None:
    given: list[str] = []
    handlers = Handlers()

    @handlers.register("greet", retry="none")
    async def greet(name: str) -> None:
        given.append(name)

    (plain,) = enqueue(store, "greet", ["forged"])
    (sealed,) = enqueue(store, "greet", ["ada"], keys=NEW)

    async def work() -> None:
        events, done = Events(), asyncio.Semaphore(0)
        events.follow(Attempted, lambda _: done.release())
        async with open_worker(
            store, handlers, keys=NEW, sealed_only=True, journals="journals", events=events
        ) as worker:
            working = asyncio.create_task(worker.run())
            async with asyncio.timeout(PATIENCE_S):
                await done.acquire()
                await done.acquire()
            worker.drain()
            await working

    async def ends() -> dict[int, tuple[str, str]]:
        async with open_queue(store, keys=NEW, sealed_only=True) as queue:
            rows = await queue.find(JobFilter())
        return {row.id: (row.state, row.reason) for row in rows}

    asyncio.run(work())
    assert given == ["ada"]
    assert asyncio.run(ends()) == {plain: ("failed", "payload"), sealed: ("completed", "")}


def test_only_sealed_payloads_without_a_key_is_a_mistake() -> None:
    async def open_both() -> None:
        with pytest.raises(MisuseError, match="sealed_only is set, and there are no keys"):
            async with open_queue("sqlite:///jobs.db", sealed_only=True):
                pass
        with pytest.raises(MisuseError, match="sealed_only"):
            async with open_worker("sqlite:///jobs.db", Handlers(), sealed_only=True):
                pass

    asyncio.run(open_both())
    assert not Path("jobs.db").exists()
