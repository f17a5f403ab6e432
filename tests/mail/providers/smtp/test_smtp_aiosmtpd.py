"""Against aiosmtpd, a server by other people."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from mailrace.errors import RejectedError
from mailrace.mail.providers.smtp import Auth, SmtpMailer, Tls
from tests.support.smtp_tls import make_certificates
from tests.support.smtp_values import CONTENT, OpenGate, message, settings


class _Handler:
    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address.startswith("nobody"):
            return "550 5.1.1 no such user"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 ok"

    async def handle_DATA(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        self.envelopes.append(envelope)
        return "250 2.0.0 taken"


def _authenticate(
    server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: LoginPassword
) -> AuthResult:
    good = data.login == b"ann" and data.password == b"hunter2"
    return AuthResult(success=good, handled=good)


@asynccontextmanager
async def _aiosmtpd(handler: _Handler, **options: Any) -> AsyncIterator[int]:
    loop = asyncio.get_running_loop()
    sessions: list[SMTP] = []

    def accept() -> SMTP:
        sessions.append(SMTP(handler, loop=loop, hostname="aiosmtpd.example", **options))
        return sessions[-1]

    server = await loop.create_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


async def test_messages() -> None:
    handler = _Handler()
    async with (
        _aiosmtpd(handler, enable_SMTPUTF8=True) as port,
        SmtpMailer(settings(port)) as mailer,
    ):
        for _ in range(3):
            answers = await mailer.send(message("a@x", "nobody@x", "c@x"), OpenGate())
            assert [each.reply.code for each in answers if each.reply] == [250, 550, 250]
        mail = message("jörg@x", content="é\r\n".encode(), smtputf8=True)
        (answer,) = await mailer.send(mail, OpenGate())
        assert answer.reply is not None
        assert answer.reply.code == 250
    assert [each.rcpt_tos for each in handler.envelopes] == [["a@x", "c@x"]] * 3 + [["jörg@x"]]
    assert handler.envelopes[0].original_content == CONTENT


@pytest.mark.parametrize("mechanism", [Auth.PLAIN, Auth.LOGIN, None])
async def test_tls_and_login(tmp_path: Path, mechanism: Auth | None) -> None:
    certificates = make_certificates(tmp_path)
    handler = _Handler()
    async with _aiosmtpd(
        handler,
        tls_context=certificates.context("127.0.0.1"),
        require_starttls=True,
        auth_required=True,
        authenticator=_authenticate,
    ) as port:
        for password in ("hunter2", "wrong"):
            tuned = settings(
                port,
                tls=Tls.REQUIRED,
                ca_file=certificates.ca_file,
                user="ann",
                password=password,
                auth=mechanism,
            )
            async with SmtpMailer(tuned) as mailer:
                if password == "wrong":
                    with pytest.raises(RejectedError, match="535"):
                        await mailer.send(message(), OpenGate())
                else:
                    await mailer.send(message(), OpenGate())
    assert len(handler.envelopes) == 1
