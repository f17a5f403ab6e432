import asyncio
from pathlib import Path

import pytest

from mailrace.errors import MisuseError, RejectedError, UnavailableError
from mailrace.mail.message import Answer, Reply, Stage
from mailrace.mail.providers.smtp import SmtpMailer, Tls
from tests.support.smtp_script import CHUNKED, ScriptServer, Stop
from tests.support.smtp_tls import Certificates, make_certificates
from tests.support.smtp_values import OpenGate, message, settings

TAKEN = Answer(Stage.BODY, Reply(250, "2.0.0", "taken"))
OFFERS = ("AUTH PLAIN", *CHUNKED)
ANN = {"user": "ann", "password": "hunter2"}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("ca"))


@pytest.mark.parametrize("tls", [Tls.REQUIRED, Tls.IMPLICIT, Tls.OPPORTUNISTIC])
async def test_login_and_messages_under_tls(certificates: Certificates, tls: Tls) -> None:
    context = certificates.context("127.0.0.1")
    implicit = tls is Tls.IMPLICIT
    async with ScriptServer(extensions=OFFERS, context=context, implicit_tls=implicit) as server:
        tuned = settings(server.port, tls=tls, ca_file=certificates.ca_file, **ANN)
        async with SmtpMailer(tuned) as mailer:
            for size in (10, 10, 1_000_000):
                content = b"x" * size + b"\r\n"
                assert await mailer.send(message(content=content), OpenGate()) == (TAKEN,)
                assert server.received[-1].content == content
    assert server.connections == 1
    before = ["EHLO"] if implicit else ["EHLO", "STARTTLS", "EHLO"]
    assert server.verbs[: len(before) + 1] == [*before, "AUTH"]
    assert server.credentials == [b"\0ann\0hunter2"]


@pytest.mark.parametrize("tls", [Tls.REQUIRED, Tls.IMPLICIT])
@pytest.mark.parametrize("trusted", [True, False], ids=["wrong name", "unknown authority"])
async def test_a_wrong_certificate(certificates: Certificates, tls: Tls, trusted: bool) -> None:
    context = certificates.context("other.example" if trusted else "127.0.0.1")
    ca_file = certificates.ca_file if trusted else None
    async with ScriptServer(context=context, implicit_tls=tls is Tls.IMPLICIT) as server:
        async with SmtpMailer(settings(server.port, tls=tls, ca_file=ca_file)) as mailer:
            with pytest.raises(RejectedError, match="verify=off"):
                await mailer.send(message(), OpenGate())
        async with SmtpMailer(settings(server.port, tls=tls, verify=False)) as mailer:
            assert await mailer.send(message(), OpenGate()) == (TAKEN,)


async def test_a_wrong_certificate_with_credentials_is_not_waved_through(
    certificates: Certificates,
) -> None:
    context = certificates.context("127.0.0.1")
    async with ScriptServer(extensions=OFFERS, context=context) as server:
        tuned = settings(server.port, tls=Tls.OPPORTUNISTIC, **ANN)
        async with SmtpMailer(tuned) as mailer:
            with pytest.raises(RejectedError, match="certificate"):
                await mailer.send(message(), OpenGate())
    assert server.credentials == []
    assert server.received == []


async def test_required_but_not_offered() -> None:
    async with (
        ScriptServer() as server,
        SmtpMailer(settings(server.port, tls=Tls.REQUIRED)) as mailer,
    ):
        with pytest.raises(RejectedError, match=r"no STARTTLS; .*tls=opportunistic"):
            await mailer.send(message(), OpenGate())
    assert server.verbs == ["EHLO"]


@pytest.mark.parametrize(
    ("reply", "kind", "says"),
    [
        (b"454 4.7.0 no TLS now\r\n", UnavailableError, "no TLS for now: 454"),
        (b"502 5.5.1 what?\r\n", RejectedError, "refuses STARTTLS"),
    ],
)
async def test_refused(
    certificates: Certificates, reply: bytes, kind: type[Exception], says: str
) -> None:
    async with ScriptServer(context=certificates.context("127.0.0.1")) as server:
        server.always("STARTTLS", reply)
        async with SmtpMailer(settings(server.port, tls=Tls.REQUIRED)) as mailer:
            with pytest.raises(kind, match=says):
                await mailer.send(message(), OpenGate())
        async with SmtpMailer(settings(server.port, tls=Tls.OPPORTUNISTIC)) as mailer:
            assert await mailer.send(message(), OpenGate()) == (TAKEN,)


async def test_421_to_starttls(certificates: Certificates) -> None:
    async with ScriptServer(context=certificates.context("127.0.0.1")) as server:
        server.on("STARTTLS", b"421 4.3.2 closing\r\n")
        async with SmtpMailer(settings(server.port, tls=Tls.OPPORTUNISTIC)) as mailer:
            with pytest.raises(UnavailableError, match=r"421 4\.3\.2 closing"):
                await mailer.send(message(), OpenGate())


@pytest.mark.parametrize("tls", [Tls.REQUIRED, Tls.OPPORTUNISTIC])
@pytest.mark.parametrize("smuggled", [b"250 trust me\r\n", b"2", b"250-AUTH PLAIN\r\n"])
async def test_plaintext_behind_starttls_is_refused(
    certificates: Certificates, smuggled: bytes, tls: Tls
) -> None:
    async with ScriptServer(context=certificates.context("127.0.0.1")) as server:
        server.on("STARTTLS", (b"220 go\r\n" + smuggled, Stop.STALL))
        tuned = settings(server.port, tls=tls, ca_file=certificates.ca_file)
        async with SmtpMailer(tuned) as mailer:
            with pytest.raises(UnavailableError, match="out of turn"):
                await mailer.send(message(), OpenGate())
    assert server.verbs == ["EHLO", "STARTTLS"]


@pytest.mark.parametrize("stop", [b"this is no TLS\r\n", Stop.CLOSE, Stop.STALL])
async def test_a_handshake_that_fails(certificates: Certificates, stop: bytes | Stop) -> None:
    async with ScriptServer(context=certificates.context("127.0.0.1")) as server:
        tuned = settings(1).timeouts
        patience = type(tuned)(connect_s=0.1, quit_s=1)
        for tls in (Tls.REQUIRED, Tls.OPPORTUNISTIC):
            server.on("STARTTLS", (b"220 go\r\n", Stop.LISTEN, stop, Stop.STALL))
            ours = settings(server.port, tls=tls, ca_file=certificates.ca_file, timeouts=patience)
            async with SmtpMailer(ours) as mailer:
                if tls is Tls.REQUIRED:
                    with pytest.raises(UnavailableError):
                        await mailer.send(message(), OpenGate())
                else:
                    assert await mailer.send(message(), OpenGate()) == (TAKEN,)
    assert server.verbs == [
        "EHLO",
        "STARTTLS",
        "EHLO",
        "STARTTLS",
        "EHLO",
        "MAIL",
        "RCPT",
        "DATA",
        "QUIT",
    ]


async def test_smtps_to_a_server_without_tls() -> None:
    async with (
        ScriptServer() as server,
        SmtpMailer(settings(server.port, tls=Tls.IMPLICIT)) as mailer,
    ):
        with pytest.raises(UnavailableError, match="smtp://"):
            await mailer.send(message(), OpenGate())


async def test_what_was_offered_before_tls_is_forgotten(certificates: Certificates) -> None:
    async with ScriptServer(extensions=(), context=certificates.context("127.0.0.1")) as server:
        server.on("EHLO", b"250-x\r\n250-STARTTLS\r\n250-CHUNKING\r\n250 PIPELINING\r\n")
        tuned = settings(server.port, tls=Tls.REQUIRED, ca_file=certificates.ca_file)
        async with SmtpMailer(tuned) as mailer:
            assert await mailer.send(message(), OpenGate()) == (TAKEN,)
    assert "BDAT" not in server.verbs


def test_a_ca_file_that_is_none(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.pem"
    for text in (None, "no certificate"):
        if text:
            wrong.write_text(text)
        with pytest.raises(MisuseError, match=r"wrong\.pem"):
            SmtpMailer(settings(25, tls=Tls.REQUIRED, ca_file=wrong))


async def test_lost_under_tls_after_the_content(certificates: Certificates) -> None:
    async with ScriptServer(context=certificates.context("127.0.0.1")) as server:
        server.on("BODY", Stop.CLOSE, Stop.RESET)
        tuned = settings(server.port, tls=Tls.REQUIRED, ca_file=certificates.ca_file)
        async with SmtpMailer(tuned) as mailer:
            for _ in range(2):
                answers = await mailer.send(message(), OpenGate())
                assert answers == (Answer(Stage.BODY, None),)


async def test_cancelled_in_the_handshake(certificates: Certificates) -> None:
    async with ScriptServer(context=certificates.context("127.0.0.1")) as server:
        server.on("STARTTLS", (b"220 go\r\n", Stop.STALL))
        tuned = settings(server.port, tls=Tls.REQUIRED, ca_file=certificates.ca_file, connections=1)
        async with SmtpMailer(tuned) as mailer:
            sending = asyncio.ensure_future(mailer.send(message(), OpenGate()))
            await server.reached("STARTTLS")
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            assert await mailer.send(message(), OpenGate()) == (TAKEN,)
