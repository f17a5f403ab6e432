"""The Python face: `send`, `stream`, and what they promise."""

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from email import message_from_bytes, policy
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mailrace import (
    Attachment,
    Campaign,
    ConflictError,
    InlineImage,
    MisuseError,
    RejectedError,
    UnavailableError,
    send,
    stream,
)
from mailrace.mail.message import Answer, Gate, Message, Reply, Stage
from mailrace.queue import End
from tests.support.recording import RecordingServer

if TYPE_CHECKING:
    from mailrace.mail import Outcome

ADA = {"email": "ada@example.net", "name": "Ada"}
BORIS = {"email": "boris@example.org", "name": "Борис"}
OK = Answer(Stage.BODY, Reply(250, "2.0.0", "ok"))


def hello(name: str = "hello", **more: str) -> Campaign:
    return Campaign(
        name=name,
        sender="Ann <ann@example.com>",
        subject="Hello {{ name }}",
        html=more.get("html", "<p>Hello {{ name }}</p>"),
    )


def crowd(count: int) -> list[dict[str, str]]:
    return [{"email": f"person{n}@example.net", "name": f"N{n}"} for n in range(count)]


def stores_here() -> list[Path]:
    return list(Path().glob("*.db"))


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Pigeon:
    """A mailer of one's own: it needs `send` and `close`, and nothing else."""

    def __init__(self, answer: Answer | Exception = OK) -> None:
        self.answer = answer
        self.letters: list[Message] = []
        self.closed = False

    async def send(self, message: Message, gate: Gate) -> tuple[Answer, ...]:
        await gate.permit()
        if isinstance(self.answer, Exception):
            raise self.answer
        gate.commit()
        self.letters.append(message)
        return (self.answer,) * len(message.recipients)

    async def close(self) -> None:
        self.closed = True


async def test_to_the_sandbox(tmp_path: Path) -> None:
    report = await send(hello(), [ADA, BORIS], via="sandbox:outbox", rate="none")
    assert (report.end, report.people, report.sent) == (End.ALL_FINAL, 2, 2)
    read = [
        message_from_bytes(path.read_bytes(), policy=policy.default)
        for path in (tmp_path / "outbox").iterdir()
    ]
    assert {message["Subject"] for message in read} == {"Hello Ada", "Hello Борис"}


async def test_to_a_server_and_once_more() -> None:
    outcomes: list[Outcome] = []
    with RecordingServer(
        answer=lambda to: "550 5.1.1 nobody" if to.startswith("boris") else "250 2.1.5 ok"
    ) as server:
        report = await send(
            hello(), [ADA, BORIS], via=server.url, rate="none", on_outcome=outcomes.append
        )
        again = await send(hello(), [ADA, BORIS], via=server.url, rate="none")
        received = server.recorded.messages
    assert (report.sent, report.failed, report.waiting, report.uncertain) == (1, 1, 0, 0)
    assert (again.sent, again.failed, again.ended_here, again.known) == (1, 1, 0, 2)
    assert [(one.reason, one.jobs) for one in again.reasons] == [("550 5.1.1", 1)]
    by_address = {one.address: one for one in outcomes}
    assert by_address["boris@example.org"].state == "failed"
    assert by_address["boris@example.org"].detail == "nobody"
    ada = by_address["ada@example.net"]
    assert (ada.state, ada.attempt) == ("completed", 1)
    assert [f"{ada.message}@example.com"] == received["ada@example.net"]


def test_from_a_program_without_a_loop(tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_text("who;name\nada@example.net;Ada\nbad;B\n")
    report = asyncio.run(
        send(
            hello(),
            tmp_path / "people.csv",
            email_column="who",
            via="sandbox:outbox",
            store="sqlite:///other.db",
            rate="none",
        )
    )
    assert (report.sent, report.rejected) == (1, 1)
    assert (tmp_path / "other.db").exists()


async def test_an_iterator_and_a_limit() -> None:
    def people() -> Iterator[dict[str, str]]:
        yield ADA
        yield BORIS

    first = await send(hello(), people(), via="sandbox:outbox", rate="none", limit=1)
    assert (first.people, first.sent) == (1, 1)
    rest = await send(hello(), people(), via="sandbox:outbox", rate="none")
    assert (rest.people, rest.sent, rest.ended_here) == (2, 2, 1)


async def test_only_a_mailer_is_required() -> None:
    pigeon = Pigeon()
    report = await send(hello(), [ADA], via=pigeon)
    assert report.sent == 1
    assert [letter.recipients for letter in pigeon.letters] == [("ada@example.net",)]
    assert not pigeon.closed  # it belongs to whoever made it


async def test_files_go_along() -> None:
    pigeon = Pigeon()
    campaign = Campaign(
        name="files",
        sender="ann@example.com",
        subject="Files",
        html='<img src="cid:logo">',
        attachments=(Attachment(file_name="a.txt", media_type="text/plain", content=b"terms"),),
        inline_images=(InlineImage(content_id="logo", media_type="image/png", content=b"\x89PNG"),),
    )
    await send(campaign, [ADA], via=pigeon)
    message = message_from_bytes(pigeon.letters[0].content, policy=policy.default)
    kinds = [part.get_content_type() for part in message.walk() if not part.is_multipart()]
    assert sorted(kinds) == ["image/png", "text/html", "text/plain", "text/plain"]


async def test_what_is_temporary_is_tried_again_and_what_waits_is_told() -> None:
    later = Pigeon(Answer(Stage.RCPT, Reply(450, "4.2.1", "later")))
    twice = await send(hello(), [ADA], via=later, retry="1ms")
    assert (twice.failed, twice.ended_here) == (1, 2)
    left = await send(hello("other"), [ADA], via=later, retry="1h", wait=False)
    assert (left.end, left.waiting) == (End.LEFT, 1)
    assert left.next_due_ms is not None


async def test_a_lost_reply_is_held_until_asked_for() -> None:
    held = await send(hello(), [ADA], via=Pigeon(Answer(Stage.BODY, None)))
    assert (held.sent, held.uncertain) == (0, 1)
    assert (await send(hello(), [ADA], via=Pigeon())).uncertain == 1
    again = await send(hello(), [ADA], via=Pigeon(), resend_uncertain=True)
    assert (again.sent, again.uncertain) == (1, 0)


async def test_a_provider_that_refuses_us_ends_the_run() -> None:
    report = await send(hello(), [ADA], via=Pigeon(RejectedError("wrong password")))
    assert (report.end, report.waiting, report.trouble) == (End.REJECTED, 1, "wrong password")


async def test_a_provider_that_cannot_be_reached() -> None:
    report = await send(hello(), [ADA], via=Pigeon(UnavailableError("down")), wait=False)
    assert (report.end, report.waiting, report.trouble) == (End.LEFT, 1, "down")


async def test_the_outcomes_as_they_come() -> None:
    with RecordingServer() as server:
        found = [
            one.address async for one in stream(hello(), crowd(50), via=server.url, rate="none")
        ]
    assert sorted(found) == sorted(one["email"] for one in crowd(50))


async def test_leaving_early_stops_in_good_order() -> None:
    """What had been handed over is accounted for, and the next call sends only the others."""
    with RecordingServer() as server:
        async with aclosing(stream(hello(), crowd(2000), via=server.url, rate="none")) as outcomes:
            async for _ in outcomes:
                break
        gone = server.recorded.total
        assert 0 < gone < 2000
        rest = await send(hello(), crowd(2000), via=server.url, rate="none")
        assert (rest.sent, rest.uncertain, rest.ended_here) == (2000, 0, 2000 - gone)
        assert {len(ids) for ids in server.recorded.messages.values()} == {1}


async def test_a_slow_reader_holds_the_sending_back() -> None:
    """While nobody reads, no more departs than the thousand that are kept and those in hand."""
    full = asyncio.Event()

    class Counted(Pigeon):
        async def send(self, message: Message, gate: Gate) -> tuple[Answer, ...]:
            answers = await super().send(message, gate)
            if len(self.letters) == 1000:
                full.set()
            return answers

    pigeon = Counted()
    async with aclosing(
        stream(hello(), crowd(1500), via=pigeon, rate="none", workers=3)
    ) as outcomes:
        await anext(outcomes)
        await full.wait()
        for _ in range(1000):  # turns of the loop in which the workers could go on
            await asyncio.sleep(0)
        assert len(pigeon.letters) <= 1000 + 1 + 3
        read = 1 + len([one async for one in outcomes])
    assert read == len(pigeon.letters) == 1500


async def test_a_fault_of_the_run_reaches_the_reader() -> None:
    with pytest.raises(MisuseError, match="is not a provider"):
        async for _ in stream(hello(), [ADA], via="carrier-pigeon"):
            pass


async def test_being_cancelled_stops_and_loses_nothing() -> None:
    departed = asyncio.Event()

    class Slow(Pigeon):
        async def send(self, message: Message, gate: Gate) -> tuple[Answer, ...]:
            await gate.permit()
            gate.commit()
            departed.set()
            await asyncio.Event().wait()
            return ()

    sending = asyncio.create_task(send(hello(), [ADA, BORIS], via=Slow(), workers=1))
    await departed.wait()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    after = await send(hello(), [ADA, BORIS], via=Pigeon())
    assert (after.sent, after.uncertain) == (1, 1)


async def test_mistakes_are_misuse_and_enqueue_nothing() -> None:
    mistakes = [
        send(hello(), [ADA], via="smtp://"),
        send(hello(), [], via="sandbox:o"),
        send(hello(), [{"name": "Ada"}], via="sandbox:o"),
        send(hello(), [{"email": "nowhere", "name": "Ada"}], via="sandbox:o"),
        send(hello(html="{{ nmae }}"), [ADA], via="sandbox:o"),
        send(hello(), "none.csv", via="sandbox:o"),
        send(hello(), [ADA], via="sandbox:o", rate="fast"),
        send(hello(), [ADA], via="sandbox:o", retry="soon"),
        send(hello(), [ADA], via="sandbox:o", workers=0),
        send(hello(), [ADA], via="sandbox:o", limit=0),
        send(hello(), [ADA], via="sandbox:o", store="mail.db"),
    ]
    for mistake in mistakes:
        with pytest.raises(MisuseError) as raised:
            await mistake
        assert raised.value.problem
        assert "\n" not in str(raised.value)
    assert stores_here() == []
    with pytest.raises(MisuseError, match="no name for a campaign"):
        hello("")


async def test_a_name_belongs_to_its_campaign() -> None:
    await send(hello(), [ADA], via=Pigeon())
    with pytest.raises(ConflictError, match="begun with another html"):
        await send(hello(html="<p>Else</p>"), [ADA], via=Pigeon())
