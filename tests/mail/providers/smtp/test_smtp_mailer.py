"""The mailer against a server that keeps what it saw."""

import asyncio

import pytest

from mailrace.errors import MisuseError, RejectedError, UnavailableError
from mailrace.mail.message import Answer, Reply, Stage
from mailrace.mail.providers.smtp import Auth, SmtpMailer, Timeouts
from tests.support.smtp_script import CHUNKED, PLAIN, STEPWISE, ScriptServer, Stop
from tests.support.smtp_values import CONTENT, FakeClock, OpenGate, message, settings

EVERY_FORM = pytest.mark.parametrize(
    "extensions", [PLAIN, CHUNKED, STEPWISE, (*STEPWISE, "CHUNKING")]
)
TAKEN = Answer(Stage.BODY, Reply(250, "2.0.0", "taken"))


@EVERY_FORM
@pytest.mark.parametrize("dribble", [False, True])
async def test_messages_arrive_as_they_are(extensions: tuple[str, ...], dribble: bool) -> None:
    async with (
        ScriptServer(extensions=extensions, dribble=dribble) as server,
        SmtpMailer(settings(server.port)) as mailer,
    ):
        gate = OpenGate()
        for number in range(3):
            content = CONTENT + b".\r\n..\r\n.%d\r\n" % number
            mail = message("bob@example.net", "eve@example.org", content=content)
            assert await mailer.send(mail, gate) == (TAKEN, TAKEN)
            assert server.received[-1].content == content
        assert server.received[0].recipients == ["bob@example.net", "eve@example.org"]
        assert server.received[0].sender == "ann@example.com"
        assert (gate.permits, gate.commits) == (3, 3)
        assert server.connections == 1


@pytest.mark.parametrize(
    ("idle_s", "extensions", "committed"),
    [(0.5, CHUNKED, 1), (1.5, CHUNKED, 0), (0.5, PLAIN, 0), (0.5, (*STEPWISE, "CHUNKING"), 0)],
)
async def test_all_in_one_write_only_where_the_server_was_just_heard(
    idle_s: float, extensions: tuple[str, ...], committed: int
) -> None:
    clock = FakeClock()
    async with (
        ScriptServer(extensions=extensions) as server,
        SmtpMailer(settings(server.port), clock=clock) as mailer,
    ):
        for stalled in (False, True):
            if stalled:
                server.on("MAIL", (Stop.STALL, b"250 ok\r\n"))
                clock.now_s += idle_s
            gate = OpenGate()
            sending = asyncio.ensure_future(mailer.send(message(), gate))
            await server.reached("MAIL")
            if not stalled:
                assert gate.commits == 0  # the first message of a connection never is
                assert await sending == (TAKEN,)
                server.forget()
        assert gate.commits == committed
        server.release.set()
        assert await sending == (TAKEN,)
        assert gate.commits == 1


@pytest.mark.parametrize("content", [b".\r\n", b".a\r\n.\r\n", b"a\r\n\r\n.\r\n.\r\n", b"\r\n"])
@EVERY_FORM
async def test_dots(extensions: tuple[str, ...], content: bytes) -> None:
    async with (
        ScriptServer(extensions=extensions) as server,
        SmtpMailer(settings(server.port)) as mailer,
    ):
        assert await mailer.send(message(content=content), OpenGate()) == (TAKEN,)
        assert await mailer.send(message(content=content), OpenGate()) == (TAKEN,)
    assert [each.content for each in server.received] == [content] * 2


@EVERY_FORM
async def test_each_recipient_has_its_own_answer(extensions: tuple[str, ...]) -> None:
    async with (
        ScriptServer(extensions=extensions) as server,
        SmtpMailer(settings(server.port)) as mailer,
    ):
        for _ in range(2):
            ok, no = b"250 ok\r\n", b"550 5.1.1 no such user\r\n"
            server.on("RCPT", ok, no, ok)
            answers = await mailer.send(message("a@x", "b@x", "c@x"), OpenGate())
            refused = Answer(Stage.RCPT, Reply(550, "5.1.1", "no such user"))
            assert answers == (TAKEN, refused, TAKEN)
            assert server.received[-1].recipients == ["a@x", "c@x"]
    assert server.connections == 1


@EVERY_FORM
@pytest.mark.parametrize("stage", ["MAIL", "RCPT", "DATA", "BODY"])
async def test_a_refusal_leaves_the_connection_good(
    extensions: tuple[str, ...], stage: str
) -> None:
    if stage == "DATA" and "CHUNKING" in extensions:
        stage = "BODY"
    async with (
        ScriptServer(extensions=extensions) as server,
        SmtpMailer(settings(server.port)) as mailer,
    ):
        for _ in range(2):  # the second time on a connection that has proved itself
            server.on(stage, b"451 4.3.0 later\r\n")
            answers = await mailer.send(message("a@x"), OpenGate())
            assert answers == (Answer(Stage(stage.lower()), Reply(451, "4.3.0", "later")),)
            assert await mailer.send(message(), OpenGate()) == (TAKEN,)
    assert server.connections == 1


async def test_everyone_refused_by_a_server_that_answers_data_all_the_same() -> None:
    async with ScriptServer() as server, SmtpMailer(settings(server.port)) as mailer:
        server.on("RCPT", b"550 no\r\n", b"551 no\r\n")
        gate = OpenGate()
        answers = await mailer.send(message("a@x", "b@x"), gate)
        assert [each.reply.code for each in answers if each.reply] == [550, 551]
        assert gate.commits == 0
        assert await mailer.send(message(), gate) == (TAKEN,)
    assert len(server.received) == 1


async def test_what_the_server_cannot_take_is_not_sent() -> None:
    async with (
        ScriptServer(extensions=("SIZE 50", "PIPELINING")) as server,
        SmtpMailer(settings(server.port)) as mailer,
    ):
        gate = OpenGate()
        for mail, enhanced in (
            (message(content=b"x" * 60 + b"\r\n"), "5.3.4"),
            (message(content=b"\xe9\r\n"), "5.6.3"),
            (message("é@x", content=b"x\r\n", smtputf8=True), "5.6.7"),
        ):
            (answer,) = await mailer.send(mail, gate)
            assert answer.reply is not None
            assert (answer.stage, answer.reply.enhanced) == (Stage.MAIL, enhanced)
        assert (gate.permits, gate.commits) == (0, 0)
        assert await mailer.send(message(content=b"x\r\n"), gate) == (TAKEN,)
    assert server.verbs == ["EHLO", "MAIL", "RCPT", "DATA", "QUIT"]


async def test_parameters_of_mail() -> None:
    async with ScriptServer() as server, SmtpMailer(settings(server.port)) as mailer:
        await mailer.send(message("é@x", content="é\r\n".encode(), smtputf8=True), OpenGate())
    assert "MAIL FROM:<ann@example.com> SIZE=4 BODY=8BITMIME SMTPUTF8" in server.commands
    assert server.received[0].recipients == ["é@x"]


async def test_extensions_can_be_turned_off() -> None:
    async with ScriptServer(extensions=CHUNKED) as server:
        tuned = settings(server.port, chunking=False, pipelining=False)
        async with SmtpMailer(tuned) as mailer:
            await mailer.send(message(), OpenGate())
    assert server.verbs == ["EHLO", "MAIL", "RCPT", "DATA", "QUIT"]


@pytest.mark.parametrize("size", [65_536, 65_537, 1_000_000])
@EVERY_FORM
async def test_large_content(extensions: tuple[str, ...], size: int) -> None:
    content = (b".23456789\r\n" * (size // 11 + 1))[: size - 2] + b"\r\n"
    extensions = tuple(each for each in extensions if not each.startswith("SIZE"))
    async with (
        ScriptServer(extensions=extensions) as server,
        SmtpMailer(settings(server.port)) as mailer,
    ):
        for _ in range(2):
            gate = OpenGate()
            assert await mailer.send(message(content=content), gate) == (TAKEN,)
            assert gate.commits == 1
    assert [each.content for each in server.received] == [content] * 2


async def test_a_server_that_stops_reading_half_way_has_not_got_the_message() -> None:
    async with ScriptServer(extensions=("PIPELINING", "CHUNKING")) as server:
        server.on("CONTENT", Stop.STALL)
        async with SmtpMailer(settings(server.port, timeouts=Timeouts(block_s=0.05))) as mailer:
            gate = OpenGate()
            with pytest.raises(UnavailableError, match="no answer in time at stage body"):
                await mailer.send(message(content=b"x" * 50_000_000 + b"\r\n"), gate)
            assert gate.commits == 0


async def test_a_refusal_half_way() -> None:
    async with ScriptServer(extensions=("PIPELINING", "CHUNKING")) as server:
        server.on("CONTENT", (b"552 5.3.4 too much\r\n", Stop.STALL))
        async with SmtpMailer(settings(server.port)) as mailer:
            gate = OpenGate()
            content = b"x" * 50_000_000 + b"\r\n"
            (answer,) = await mailer.send(message(content=content), gate)
            assert answer == Answer(Stage.BODY, Reply(552, "5.3.4", "too much"))
            assert gate.commits == 0


async def test_misuse_is_found_before_connecting() -> None:
    async with ScriptServer() as server, SmtpMailer(settings(server.port)) as mailer:
        with pytest.raises(MisuseError):
            await mailer.send(message("a\r\n@x"), OpenGate())
        assert server.connections == 0


async def test_helo_for_a_server_that_knows_no_better() -> None:
    async with ScriptServer(extensions=CHUNKED) as server:
        server.always("EHLO", b"502 5.5.1 what?\r\n")
        async with SmtpMailer(settings(server.port, hello="me.example")) as mailer:
            assert await mailer.send(message(), OpenGate()) == (TAKEN,)
    assert server.commands[:2] == ["EHLO me.example", "HELO me.example"]
    assert "BDAT" not in server.verbs


@pytest.mark.parametrize(
    ("stage", "act", "kind", "says"),
    [
        ("CONNECT", b"421 4.3.2 too many connections\r\n", UnavailableError, "too many"),
        ("CONNECT", b"554 5.7.1 blocked\r\n", RejectedError, "554 5.7.1 blocked"),
        ("CONNECT", b"250 hello\r\n", UnavailableError, "250"),
        ("CONNECT", Stop.CLOSE, UnavailableError, "lost the connection"),
        ("CONNECT", Stop.RESET, UnavailableError, "lost the connection"),
        ("CONNECT", Stop.CONFUSED, UnavailableError, "no reply"),
        ("CONNECT", b"220 one\r\n220 two\r\n", UnavailableError, "out of turn"),
        ("EHLO", b"421 4.3.2 going\r\n", UnavailableError, "going"),
        ("EHLO", b"250-x\r\n251 y\r\n", UnavailableError, "two codes"),
        ("EHLO", b"250-" + b"x" * 65_536, UnavailableError, "longer than"),
        ("EHLO", Stop.CLOSE, UnavailableError, "lost the connection"),
        ("EHLO", b"250 x\r\n250 y\r\n", UnavailableError, "out of turn"),
    ],
)
async def test_a_session_that_does_not_come_about(
    stage: str, act: bytes | Stop, kind: type[Exception], says: str
) -> None:
    async with ScriptServer() as server:
        server.on(stage, act)
        async with SmtpMailer(settings(server.port)) as mailer:
            gate = OpenGate()
            with pytest.raises(kind, match=says) as caught:
                await mailer.send(message(), gate)
            assert f"127.0.0.1:{server.port}" in str(caught.value)
            assert "\n" not in str(caught.value)
            assert (gate.permits, gate.commits) == (0, 0)
            assert await mailer.send(message(), gate) == (TAKEN,)


async def test_ehlo_and_helo_refused() -> None:
    async with ScriptServer() as server:
        server.on("EHLO", b"550 5.7.1 bad name\r\n")
        server.on("HELO", b"550 5.7.1 bad name\r\n")
        async with SmtpMailer(settings(server.port)) as mailer:
            with pytest.raises(RejectedError, match="hello=NAME"):
                await mailer.send(message(), OpenGate())


async def test_a_server_that_is_busy_at_ehlo_has_nothing_against_the_name() -> None:
    async with ScriptServer() as server:
        server.on("EHLO", b"421 4.3.2 busy\r\n", b"450 4.3.2 busy\r\n")
        async with SmtpMailer(settings(server.port)) as mailer:
            for _ in range(2):
                with pytest.raises(UnavailableError, match=r"EHLO now: 4\d\d 4.3.2 busy") as caught:
                    await mailer.send(message(), OpenGate())
                assert caught.value.hint == ""


@pytest.mark.parametrize("extensions", [PLAIN, CHUNKED, STEPWISE])
@pytest.mark.parametrize("code", [530, 534, 535, 538])
async def test_mail_refused_for_want_of_a_login_is_no_answer_to_the_message(
    extensions: tuple[str, ...], code: int
) -> None:
    async with (
        ScriptServer(extensions=extensions) as server,
        SmtpMailer(settings(server.port)) as mailer,
    ):
        for _ in range(2):  # the second time all in one write where there is CHUNKING
            server.on("MAIL", b"%d 5.7.0 Authentication required\r\n" % code)
            with pytest.raises(RejectedError, match="Authentication required") as caught:
                await mailer.send(message("a@example.net", "b@example.net"), OpenGate())
            assert "user and password" in caught.value.hint
            assert await mailer.send(message(), OpenGate()) == (TAKEN,)


@pytest.mark.parametrize("reply", [Reply(550, "5.7.1", "not you"), Reply(550, "5.1.8", "who?")])
async def test_other_refusals_of_mail_are_answers(reply: Reply) -> None:
    async with ScriptServer() as server, SmtpMailer(settings(server.port)) as mailer:
        server.on("MAIL", f"{reply.code} {reply.enhanced} {reply.text}\r\n".encode())
        assert await mailer.send(message(), OpenGate()) == (Answer(Stage.MAIL, reply),)


async def test_nobody_listens(unused_tcp_port: int) -> None:
    async with SmtpMailer(settings(unused_tcp_port)) as mailer:
        with pytest.raises(UnavailableError, match=f"127.0.0.1:{unused_tcp_port}"):
            await mailer.send(message(), OpenGate())


async def test_no_such_host() -> None:
    async with SmtpMailer(settings(25, host="nowhere.invalid")) as mailer:
        with pytest.raises(UnavailableError, match=r"no address for nowhere.invalid:25"):
            await mailer.send(message(), OpenGate())


AUTHS = "AUTH PLAIN LOGIN CRAM-MD5 XOAUTH2"


@pytest.mark.parametrize(
    ("mechanism", "seen"),
    [
        (Auth.PLAIN, [b"\0ann\0hunter2"]),
        (Auth.LOGIN, [b"ann", b"hunter2"]),
        (Auth.CRAM_MD5, [b"ann d1e2b0c5ab5a9bd7"]),
        (Auth.XOAUTH2, [b"user=ann\x01auth=Bearer hunter2\x01\x01"]),
        (None, [b"ann d1e2b0c5ab5a9bd7"]),
    ],
)
async def test_login_in_the_clear_when_asked_for(mechanism: Auth | None, seen: list[bytes]) -> None:
    async with ScriptServer(extensions=(*PLAIN, AUTHS)) as server:
        tuned = settings(
            server.port, user="ann", password="hunter2", auth=mechanism, auth_in_clear=True
        )
        async with SmtpMailer(tuned) as mailer:
            assert await mailer.send(message(), OpenGate()) == (TAKEN,)
    if mechanism in {Auth.CRAM_MD5, None}:
        assert server.credentials[0].startswith(b"ann ")
        assert len(server.credentials[0]) == 4 + 32
    else:
        assert server.credentials == seen


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (b"535 5.7.8 wrong, you said AGFubgBodW50ZXIy\r\n", RejectedError),
        (b"534 5.7.9 too weak\r\n", RejectedError),
        (b"530 5.7.0 first something else\r\n", RejectedError),
        (b"454 4.7.0 later\r\n", UnavailableError),
        (b"421 4.7.0 bye\r\n", UnavailableError),
        (b"334 bW9yZQ==\r\n", RejectedError),
    ],
)
async def test_login_refused(reply: bytes, kind: type[Exception]) -> None:
    async with ScriptServer(extensions=(*PLAIN, "AUTH PLAIN")) as server:
        server.on("AUTH", reply)
        tuned = settings(server.port, user="ann", password="hunter2", auth_in_clear=True)
        async with SmtpMailer(tuned) as mailer:
            with pytest.raises(kind) as caught:
                await mailer.send(message(), OpenGate())
    assert "hunter2" not in str(caught.value)
    assert "AGFubgBodW50ZXIy" not in str(caught.value)


async def test_credentials_do_not_travel_in_the_clear() -> None:
    async with (
        ScriptServer(extensions=(*PLAIN, AUTHS)) as server,
        SmtpMailer(settings(server.port, user="ann", password="hunter2")) as mailer,
    ):
        with pytest.raises(RejectedError, match="without TLS"):
            await mailer.send(message(), OpenGate())
    assert server.verbs == ["EHLO"]


async def test_no_mechanism_in_common() -> None:
    async with ScriptServer(extensions=(*PLAIN, "AUTH GSSAPI NTLM")) as server:
        tuned = settings(server.port, user="ann", password="hunter2", auth_in_clear=True)
        async with SmtpMailer(tuned) as mailer:
            with pytest.raises(RejectedError, match="it offers: GSSAPI NTLM"):
                await mailer.send(message(), OpenGate())


class _ClosedGate(OpenGate):
    def commit(self) -> None:
        raise ValueError("the journal is full")


@EVERY_FORM
async def test_a_gate_that_raises_keeps_the_message_in(extensions: tuple[str, ...]) -> None:
    async with (
        ScriptServer(extensions=extensions) as server,
        SmtpMailer(settings(server.port)) as mailer,
    ):
        for _ in range(2):
            with pytest.raises(ValueError, match="journal"):
                await mailer.send(message(), _ClosedGate())
            assert await mailer.send(message(), OpenGate()) == (TAKEN,)
    assert len(server.received) == 2


async def test_a_permit_that_raises_leaves_the_connection_good() -> None:
    class Barrier(OpenGate):
        async def permit(self) -> None:
            raise ValueError("stop")

    async with ScriptServer() as server, SmtpMailer(settings(server.port)) as mailer:
        with pytest.raises(ValueError, match="stop"):
            await mailer.send(message(), Barrier())
        assert await mailer.send(message(), OpenGate()) == (TAKEN,)
        assert server.connections == 1


async def test_many_at_once() -> None:
    async with ScriptServer(extensions=CHUNKED) as server:
        async with SmtpMailer(settings(server.port, connections=5, messages=7)) as mailer:
            mails = [message(f"r{number}@x") for number in range(100)]
            answers = await asyncio.gather(*(mailer.send(mail, OpenGate()) for mail in mails))
        assert answers == [(TAKEN,)] * 100
        got = sorted(each.recipients[0] for each in server.received)
        assert got == sorted(mail.recipients[0] for mail in mails)
        assert server.verbs.count("QUIT") == server.connections
