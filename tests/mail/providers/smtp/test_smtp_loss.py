"""A connection that ends at every stage: what is safe is repeated, what is not is left unknown."""

import asyncio
from dataclasses import replace

import pytest

from mailrace.errors import RejectedError, UnavailableError
from mailrace.mail.message import Answer, Reply, Stage
from mailrace.mail.providers.smtp import SmtpMailer, Tls
from mailrace.mail.providers.smtp.connection import Connection
from mailrace.mail.providers.smtp.failures import LostError
from mailrace.mail.providers.smtp.handshake import Handshake
from mailrace.mail.providers.smtp.states import State
from tests.support.smtp_script import CHUNKED, PLAIN, STEPWISE, Act, ScriptServer, Stop
from tests.support.smtp_values import FakeClock, OpenGate, message, settings

TAKEN = Answer(Stage.BODY, Reply(250, "2.0.0", "taken"))
UNKNOWN = Answer(Stage.BODY, None)
BUSY = b"421 4.3.2 closing\r\n"

FORMS = pytest.mark.parametrize(
    "extensions", [PLAIN, CHUNKED, STEPWISE], ids=["grouped", "chunked", "steps"]
)
ENDS = pytest.mark.parametrize(
    "end", [Stop.CLOSE, Stop.RESET, Stop.STALL, Stop.CONFUSED, BUSY], ids=str
)


def _patience(server: ScriptServer, end: Act) -> SmtpMailer:
    tuned = settings(server.port)
    if end is Stop.STALL:
        short = replace(
            tuned.timeouts,
            greeting_s=0.05,
            command_s=0.05,
            mail_s=0.05,
            rcpt_s=0.05,
            data_s=0.05,
            final_s=0.05,
        )
        tuned = replace(tuned, timeouts=short)
    return SmtpMailer(tuned)


def _is_uncertain(stage: str, extensions: tuple[str, ...], *, proven: bool) -> bool:
    """Whether the end of the content is out when `stage` comes up."""
    at_once = proven and "CHUNKING" in extensions
    return at_once or stage in {"BODY", "CONTENT"}


@FORMS
@ENDS
@pytest.mark.parametrize("stage", ["MAIL", "RCPT", "DATA", "BODY"])
@pytest.mark.parametrize("kept", [False, True], ids=["fresh", "kept"])
async def test_an_end_at_every_stage(
    extensions: tuple[str, ...], end: Act, stage: str, kept: bool
) -> None:
    if stage == "DATA" and "CHUNKING" in extensions:
        stage = "CONTENT"
    async with ScriptServer(extensions=extensions) as server, _patience(server, end) as mailer:
        if kept:
            assert await mailer.send(message(), OpenGate()) == (TAKEN,)
            server.received.clear()
        server.on(stage, end)
        gate = OpenGate()
        sending = mailer.send(message(), gate)
        if end == BUSY and not (kept and stage == "MAIL" and "CHUNKING" not in extensions):
            (answer,) = await sending  # a real reply: not taken, nobody is in doubt
            assert answer.reply == Reply(421, "4.3.2", "closing")
            assert gate.commits == _is_uncertain(stage, extensions, proven=kept)
        elif _is_uncertain(stage, extensions, proven=kept):
            assert await sending == (UNKNOWN,)
            assert (gate.permits, gate.commits) == (1, 1)
        elif kept:
            assert await sending == (TAKEN,)
            assert (gate.permits, gate.commits) == (2, 1)
            assert len(server.received) == 1
            assert server.connections == 2
        else:
            with pytest.raises(UnavailableError):
                await sending
            assert (gate.permits, gate.commits) == (1, 0)
            assert server.received == []
        server.release.set()
        server.received.clear()
        gate = OpenGate()
        assert await mailer.send(message(), gate) == (TAKEN,)
        assert (gate.permits, gate.commits) == (1, 1)


@pytest.mark.parametrize("stage", ["CONNECT", "EHLO", "MAIL"])
async def test_the_second_try_is_the_last(stage: str) -> None:
    async with (
        ScriptServer() as server,
        SmtpMailer(settings(server.port, connections=1)) as mailer,
    ):
        assert await mailer.send(message(), OpenGate()) == (TAKEN,)
        server.on("MAIL", Stop.CLOSE)
        if stage == "MAIL":
            server.on("MAIL", Stop.CLOSE)
        else:
            server.on(stage, Stop.CLOSE)
        with pytest.raises(UnavailableError, match="lost the connection"):
            await mailer.send(message(), OpenGate())
        assert server.connections == 2
        assert len(server.received) == 1
        assert await mailer.send(message(), OpenGate()) == (TAKEN,)


@FORMS
async def test_refused_recipients_keep_their_reply_when_the_rest_is_unknown(
    extensions: tuple[str, ...],
) -> None:
    async with (
        ScriptServer(extensions=extensions) as server,
        SmtpMailer(settings(server.port)) as mailer,
    ):
        for _ in range(2):
            server.on("RCPT", b"250 ok\r\n", b"550 5.1.1 no\r\n")
            server.on("BODY", Stop.CLOSE)
            answers = await mailer.send(message("a@x", "b@x"), OpenGate())
            assert answers == (UNKNOWN, Answer(Stage.RCPT, Reply(550, "5.1.1", "no")))
            assert await mailer.send(message(), OpenGate()) == (TAKEN,)


@FORMS
@pytest.mark.parametrize(("stage", "settled"), [("MAIL", Stage.MAIL), ("RCPT", Stage.RCPT)])
async def test_a_refusal_is_settled_though_the_connection_ends_behind_it(
    extensions: tuple[str, ...], stage: str, settled: Stage
) -> None:
    async with (
        ScriptServer(extensions=extensions) as server,
        SmtpMailer(settings(server.port)) as mailer,
    ):
        assert await mailer.send(message(), OpenGate()) == (TAKEN,)
        server.on(stage, (b"550 5.7.1 no\r\n", Stop.CLOSE))
        answers = await mailer.send(message(), OpenGate())
        assert answers == (Answer(settled, Reply(550, "5.7.1", "no")),)
        assert await mailer.send(message(), OpenGate()) == (TAKEN,)


@FORMS
async def test_421_to_the_content_is_an_answer(extensions: tuple[str, ...]) -> None:
    async with (
        ScriptServer(extensions=extensions) as server,
        SmtpMailer(settings(server.port)) as mailer,
    ):
        for _ in range(2):
            server.on("BODY", (BUSY, Stop.CLOSE))
            answers = await mailer.send(message(), OpenGate())
            assert answers == (Answer(Stage.BODY, Reply(421, "4.3.2", "closing")),)
        assert server.connections == 2


async def test_a_last_word_after_the_answer_drops_the_connection() -> None:
    async with ScriptServer() as server, SmtpMailer(settings(server.port)) as mailer:
        server.on("BODY", b"250 2.0.0 taken\r\n421 4.3.2 closing\r\n")
        assert await mailer.send(message(), OpenGate()) == (TAKEN,)
        assert await mailer.send(message(), OpenGate()) == (TAKEN,)
        assert server.connections == 2


async def test_two_replies_to_one_command_do_not_pass_for_the_next() -> None:
    async with (
        ScriptServer(extensions=STEPWISE) as server,
        SmtpMailer(settings(server.port)) as mailer,
    ):
        server.on("MAIL", b"250 ok\r\n250 ok\r\n")
        gate = OpenGate()
        with pytest.raises(UnavailableError, match="out of turn"):
            await mailer.send(message(), gate)
        assert gate.commits == 0


async def test_a_connection_closed_while_idle_is_noticed() -> None:
    async with ScriptServer() as server, SmtpMailer(settings(server.port)) as mailer:
        assert await mailer.send(message(), OpenGate()) == (TAKEN,)
        await server.disconnect_all()
        gate = OpenGate()
        assert await mailer.send(message(), gate) == (TAKEN,)
        assert server.connections == 2
        assert gate.commits == 1


class _SlowGate(OpenGate):
    """A permit that takes until `opened` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()
        self.opened = asyncio.Event()

    async def permit(self) -> None:
        await super().permit()
        self.asked.set()
        await self.opened.wait()


@pytest.mark.parametrize("kept", [False, True])
async def test_a_connection_that_dies_while_the_limit_is_waited_for(kept: bool) -> None:
    async with ScriptServer() as server, SmtpMailer(settings(server.port)) as mailer:
        if kept:
            assert await mailer.send(message(), OpenGate()) == (TAKEN,)
        gate = _SlowGate()
        sending = asyncio.ensure_future(mailer.send(message(), gate))
        await gate.asked.wait()
        await server.disconnect_all()
        gate.opened.set()
        assert await sending == (TAKEN,)
        assert (gate.permits, gate.commits) == (1, 1)
        assert server.connections == 2
        assert server.verbs.count("MAIL") == 1 + kept


class _ClosingGate(OpenGate):
    """A permit that takes so long that the server closes its connections meanwhile."""

    def __init__(self, server: ScriptServer) -> None:
        super().__init__()
        self._server = server

    async def permit(self) -> None:
        await super().permit()
        await self._server.disconnect_all()


class _OpeningClock(FakeClock):
    """A second and a half goes by whenever somebody looks."""

    def monotonic_s(self) -> float:
        self.now_s += 1.5
        return self.now_s


async def test_a_slow_opening_costs_a_second_permit_but_never_a_third() -> None:
    async with (
        ScriptServer() as server,
        SmtpMailer(settings(server.port), clock=_OpeningClock()) as mailer,
    ):
        gate = _ClosingGate(server)
        assert await mailer.send(message(), gate) == (TAKEN,)
        assert (gate.permits, gate.commits) == (2, 1)
        assert server.connections == 3
        assert server.verbs.count("MAIL") == 1


async def test_our_own_idle_time_does_not_end_what_waits_for_the_limit() -> None:
    clock = FakeClock()
    async with (
        ScriptServer() as server,
        SmtpMailer(settings(server.port, idle_s=0.04), clock=clock) as mailer,
    ):
        assert await mailer.send(message(), OpenGate()) == (TAKEN,)
        gate = _SlowGate()
        sending = asyncio.ensure_future(mailer.send(message(), gate))
        await gate.asked.wait()
        clock.now_s += 1000
        # A second connection comes and is idled out: the pool has looked at both.
        await mailer.send(message(), OpenGate())
        clock.now_s += 1000
        await server.reached("QUIT")
        gate.opened.set()
        assert await sending == (TAKEN,)
        assert server.connections == 2


async def test_a_good_bye_crossing_a_message_that_waited_is_no_answer_to_it() -> None:
    """A fresh connection that was silent as long as a kept one is treated as one."""
    clock = FakeClock()
    async with (
        ScriptServer() as server,
        SmtpMailer(settings(server.port), clock=clock) as mailer,
    ):
        gate = _SlowGate()
        sending = asyncio.ensure_future(mailer.send(message(), gate))
        await gate.asked.wait()
        clock.now_s += 300
        server.on("MAIL", (BUSY, Stop.CLOSE))
        gate.opened.set()
        assert await sending == (TAKEN,)
        assert (gate.permits, gate.commits) == (2, 1)


@FORMS
@pytest.mark.parametrize(
    ("stage", "kept"),
    [("CONNECT", False), ("EHLO", False)]
    + [(stage, kept) for stage in ("MAIL", "RCPT", "DATA", "BODY") for kept in (False, True)],
)
async def test_cancelled_at_every_stage(
    extensions: tuple[str, ...], stage: str, kept: bool
) -> None:
    if stage == "DATA" and "CHUNKING" in extensions:
        stage = "CONTENT"
    async with (
        ScriptServer(extensions=extensions) as server,
        SmtpMailer(settings(server.port, connections=1)) as mailer,
    ):
        if kept:
            assert await mailer.send(message(), OpenGate()) == (TAKEN,)
        server.forget()
        server.on(stage, Stop.STALL)
        sending = asyncio.ensure_future(mailer.send(message(), OpenGate()))
        await server.reached(stage)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        before = server.connections
        assert await mailer.send(message(), OpenGate()) == (TAKEN,)
        assert server.connections == before + 1


async def test_cancelled_while_the_limit_is_waited_for() -> None:
    async with ScriptServer() as server, SmtpMailer(settings(server.port, connections=1)) as mailer:
        gate = _SlowGate()
        sending = asyncio.ensure_future(mailer.send(message(), gate))
        await gate.asked.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert await mailer.send(message(), OpenGate()) == (TAKEN,)
    assert server.verbs.count("MAIL") == 1


class _Transport(asyncio.Transport):
    """Takes what is written."""

    def __init__(self) -> None:
        super().__init__({"sockname": ("127.0.0.1", 1)})
        self.written = b""
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True


async def test_a_refusal_is_read_though_the_end_came_with_it() -> None:
    """Under TLS both come in one call of the event loop, before anybody wakes up."""
    tuned = settings(25)
    connection = Connection(tuned, FakeClock(), lambda _: None)
    connection.connection_made(_Transport())
    connection.data_received(b"554 5.7.1 blocked\r\n")
    connection.eof_received()
    handshake = Handshake(
        tuned, connection.machine, hello="me.example", encrypted=False, tls=Tls.OFF
    )
    reply = await connection.reply(1)
    with pytest.raises(RejectedError, match="blocked"):
        handshake.receive(*reply)
    with pytest.raises(LostError):
        await connection.reply(1)
    connection.abort("done")
    assert connection.machine.state is State.CLOSED


async def test_what_comes_unasked_ends_a_waiting_connection() -> None:
    for stray in (b"250 surprise\r\n", b"2", b"421 4.3.2 bye\r\n", b"\xff\n"):
        connection = Connection(settings(25), FakeClock(), lambda _: None)
        connection.connection_made(_Transport())
        connection.machine.state = State.READY
        connection.data_received(stray)
        assert not connection.usable
        with pytest.raises(LostError):
            await connection.transact(message(), OpenGate())
