"""What every mailer promises, whatever stands behind it (`mailrace.mail.message.Mailer`)."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mailrace.errors import ConflictError
from mailrace.mail.message import Mailer, Message, Stage
from mailrace.mail.providers.sandbox import SandboxMailer
from mailrace.mail.providers.smtp import SmtpMailer, parse_smtp_url
from tests.support.recording import RecordingServer

CONTENT = (
    b"From: ann@example.com\r\nTo: ada@example.net\r\nMessage-ID: <one@example.com>\r\n"
    b"\r\nHello.\r\n.\r\n"
)


@dataclass
class House:
    """A mailer and a way to see how many messages arrived."""

    mailer: Mailer
    arrived: Callable[[], int]


@dataclass
class Steps:
    """A gate that notes its steps and may refuse."""

    refuse: bool = False
    stand: asyncio.Event | None = None
    taken: list[str] = field(default_factory=list)

    async def permit(self) -> None:
        self.taken.append("permit")
        if self.stand is not None:
            self.stand.set()
            await asyncio.Event().wait()

    def commit(self) -> None:
        self.taken.append("commit")
        if self.refuse:
            raise ConflictError("the lease has run out")


@pytest.fixture(params=["smtp", "smtp-data", "sandbox"])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    if request.param == "sandbox":
        yield House(
            SandboxMailer(tmp_path / "box"), lambda: len(list((tmp_path / "box").glob("*.eml")))
        )
        return
    with RecordingServer(chunking=request.param == "smtp") as server:
        yield House(SmtpMailer(parse_smtp_url(server.url)), lambda: server.recorded.total)


def message(*recipients: str) -> Message:
    return Message(
        sender="ann@example.com", recipients=recipients or ("ada@example.net",), content=CONTENT
    )


async def test_a_message_passes_the_gate_in_order_and_is_answered(house: House) -> None:
    steps = Steps()
    (answer,) = await house.mailer.send(message(), steps)
    assert steps.taken == ["permit", "commit"]
    assert answer.stage is Stage.BODY
    assert answer.reply is not None
    assert answer.reply.code == 250
    assert house.arrived() == 1
    await house.mailer.close()


async def test_there_is_an_answer_for_each_recipient(house: House) -> None:
    answers = await house.mailer.send(message("ada@example.net", "boris@example.org"), Steps())
    assert [answer.reply is not None and answer.reply.code for answer in answers] == [250, 250]
    await house.mailer.close()


async def test_what_the_gate_refuses_does_not_go_out(house: House) -> None:
    with pytest.raises(ConflictError):
        await house.mailer.send(message(), Steps(refuse=True))
    assert house.arrived() == 0
    (answer,) = await house.mailer.send(message(), Steps())
    assert answer.reply is not None
    assert house.arrived() == 1
    await house.mailer.close()


async def test_a_send_that_is_cancelled_in_line_has_not_begun(house: House) -> None:
    standing = asyncio.Event()
    sending = asyncio.create_task(house.mailer.send(message(), Steps(stand=standing)))
    await standing.wait()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert house.arrived() == 0
    (answer,) = await house.mailer.send(message(), Steps())
    assert answer.reply is not None
    await house.mailer.close()


async def test_closing_twice_is_closing_once(house: House) -> None:
    await house.mailer.close()
    await house.mailer.close()
