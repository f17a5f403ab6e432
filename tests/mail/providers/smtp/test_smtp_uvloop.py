"""The same client on uvloop, which has transports of its own."""

import asyncio
from pathlib import Path

import pytest
import uvloop

from mailrace.errors import RejectedError, UnavailableError
from mailrace.mail.message import Answer, Reply, Stage
from mailrace.mail.providers.smtp import SmtpMailer, Tls
from tests.support.smtp_script import CHUNKED, PLAIN, ScriptServer, Stop
from tests.support.smtp_tls import Certificates, make_certificates
from tests.support.smtp_values import OpenGate, message, settings

TAKEN = Answer(Stage.BODY, Reply(250, "2.0.0", "taken"))


async def _talk(certificates: Certificates, extensions: tuple[str, ...], tls: Tls) -> None:
    context = certificates.context("127.0.0.1")
    async with ScriptServer(
        extensions=extensions, context=context, implicit_tls=tls is Tls.IMPLICIT
    ) as server:
        tuned = settings(server.port, tls=tls, ca_file=certificates.ca_file)
        async with SmtpMailer(tuned) as mailer:
            for lines in (1, 1, 100_000):
                mail = message(content=b"12345678\r\n" * lines)
                assert await mailer.send(mail, OpenGate()) == (TAKEN,)
            server.on("BODY", Stop.CLOSE)
            assert await mailer.send(message(), OpenGate()) == (Answer(Stage.BODY, None),)
            server.on("MAIL", Stop.CLOSE)
            with pytest.raises(UnavailableError):
                await mailer.send(message(), OpenGate())
            server.forget()
            server.on("MAIL", Stop.STALL)
            sending = asyncio.ensure_future(mailer.send(message(), OpenGate()))
            await server.reached("MAIL")
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            assert await mailer.send(message(), OpenGate()) == (TAKEN,)
        async with SmtpMailer(settings(server.port, tls=tls)) as mailer:
            with pytest.raises(RejectedError, match="certificate"):
                await mailer.send(message(), OpenGate())


@pytest.mark.parametrize("extensions", [PLAIN, CHUNKED], ids=["grouped", "chunked"])
@pytest.mark.parametrize("tls", [Tls.REQUIRED, Tls.IMPLICIT])
def test_on_uvloop(tmp_path: Path, extensions: tuple[str, ...], tls: Tls) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_talk(make_certificates(tmp_path), extensions, tls))
