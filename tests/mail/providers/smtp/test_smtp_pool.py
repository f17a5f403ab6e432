import asyncio

import pytest

from mailrace.errors import MisuseError, UnavailableError
from mailrace.mail.message import Answer, Reply, Stage
from mailrace.mail.providers.smtp import SmtpMailer, SmtpSettings
from mailrace.mail.providers.smtp.pool import Pool
from tests.support.smtp_script import CHUNKED, ScriptServer, Stop
from tests.support.smtp_values import FakeClock, OpenGate, message, settings

TAKEN = Answer(Stage.BODY, Reply(250, "2.0.0", "taken"))


def _pool(tuned: SmtpSettings, clock: FakeClock | None = None) -> Pool:
    return Pool(tuned, clock or FakeClock())


async def test_the_last_used_comes_first() -> None:
    async with ScriptServer() as server:
        pool = _pool(settings(server.port))
        first, second = await pool.acquire(), await pool.acquire()
        pool.give_back(first)
        pool.give_back(second)
        assert pool.take() is second
        assert pool.take() is first
        assert pool.take() is None
        assert pool.slots == 2
        pool.give_back(first)
        pool.give_back(second)
        await pool.close()
        assert (pool.slots, pool.idle) == (0, 0)
    assert server.verbs.count("QUIT") == 2


async def test_no_more_than_allowed_and_first_come_first_served() -> None:
    async with ScriptServer() as server:
        pool = _pool(settings(server.port, connections=1))
        held = await pool.acquire()
        waiting = [asyncio.ensure_future(pool.acquire()) for _ in range(3)]
        for each in waiting:
            await asyncio.sleep(0)
            assert not each.done()
        pool.give_back(held)
        assert await waiting[0] is held
        waiting[1].cancel()
        held.abort("gone")
        pool.give_back(held)
        fresh = await waiting[2]
        assert fresh is not held
        assert (pool.slots, server.connections) == (1, 2)
        pool.give_back(fresh)
        await pool.close()
        assert pool.slots == 0


@pytest.mark.parametrize("alive", [True, False])
async def test_a_slot_granted_to_somebody_who_is_cancelled_goes_on(alive: bool) -> None:
    async with ScriptServer() as server:
        pool = _pool(settings(server.port, connections=1))
        held = await pool.acquire()
        first, second = (asyncio.ensure_future(pool.acquire()) for _ in range(2))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if not alive:
            held.abort("gone")
        pool.give_back(held)
        first.cancel()
        connection = await second
        assert (connection is held) is alive
        pool.give_back(connection)
        assert pool.slots == 1
        await pool.close()


async def test_failures_to_open_do_not_use_up_slots() -> None:
    async with ScriptServer() as server, SmtpMailer(settings(server.port, connections=2)) as mailer:
        server.on("CONNECT", *[b"421 no\r\n"] * 10)
        found = await asyncio.gather(
            *(mailer.send(message(), OpenGate()) for _ in range(10)), return_exceptions=True
        )
        assert [type(each) for each in found] == [UnavailableError] * 10
        assert await mailer.send(message(), OpenGate()) == (TAKEN,)


async def test_a_connection_serves_so_many_messages() -> None:
    async with ScriptServer(extensions=CHUNKED) as server:
        async with SmtpMailer(settings(server.port, messages=3)) as mailer:
            for _ in range(7):
                assert await mailer.send(message(), OpenGate()) == (TAKEN,)
        assert server.connections == 3
        assert server.verbs.count("QUIT") == 3


async def test_the_answer_to_quit_is_not_waited_for() -> None:
    async with ScriptServer() as server:
        server.on("QUIT", Stop.STALL)
        async with SmtpMailer(settings(server.port, messages=1, connections=1)) as mailer:
            assert await mailer.send(message(), OpenGate()) == (TAKEN,)
            await server.reached("QUIT")
            assert await mailer.send(message(), OpenGate()) == (TAKEN,)
            server.release.set()


async def test_idle_connections_are_given_up() -> None:
    clock = FakeClock()
    async with ScriptServer() as server:
        pool = _pool(settings(server.port, idle_s=0.04), clock)
        pool.give_back(await pool.acquire())
        assert pool.idle == 1
        clock.now_s += 0.05
        await server.reached("QUIT")
        assert (pool.idle, pool.slots) == (0, 0)
        await pool.close()


async def test_connections_in_hand_are_not_given_up() -> None:
    async with ScriptServer() as server:
        pool = _pool(settings(server.port, idle_s=60, connections=1))
        pool.give_back(await pool.acquire())
        taken = pool.take()
        assert taken is not None
        assert taken.due_s == float("inf")
        waiting = asyncio.ensure_future(pool.acquire())
        await asyncio.sleep(0)
        pool.give_back(taken)
        assert await waiting is taken
        assert taken.due_s == float("inf")
        pool.give_back(taken)
        assert taken.due_s < float("inf")
        await pool.close()


async def test_close_waits_for_messages_under_way() -> None:
    async with ScriptServer() as server:
        mailer = SmtpMailer(settings(server.port))
        server.on("BODY", (Stop.STALL, b"250 2.0.0 taken\r\n"))
        sending = asyncio.ensure_future(mailer.send(message(), OpenGate()))
        await server.reached("BODY")
        closing = asyncio.ensure_future(mailer.close())
        await asyncio.sleep(0)
        server.release.set()
        assert await sending == (TAKEN,)
        await closing
        assert server.verbs[-1] == "QUIT"


async def test_close_does_not_wait_for_ever() -> None:
    async with ScriptServer() as server:
        timeouts = settings(1).timeouts.scaled_to(5)
        tuned = settings(server.port, timeouts=type(timeouts)(quit_s=0.05))
        mailer = SmtpMailer(tuned)
        assert await mailer.send(message(), OpenGate()) == (TAKEN,)
        server.always("QUIT", Stop.STALL)
        server.forget()
        server.on("BODY", Stop.STALL)
        idle = asyncio.ensure_future(mailer.send(message(), OpenGate()))
        await server.reached("BODY")
        await mailer.close()
        assert await idle == (Answer(Stage.BODY, None),)
        await mailer.close()


async def test_a_closed_mailer_says_so() -> None:
    async with ScriptServer() as server:
        mailer = SmtpMailer(settings(server.port))
        assert await mailer.send(message(), OpenGate()) == (TAKEN,)
        await mailer.close()
        with pytest.raises(MisuseError, match="closed"):
            await mailer.send(message(), OpenGate())


async def test_closing_wakes_those_who_wait_or_open() -> None:
    async with ScriptServer() as server:
        mailer = SmtpMailer(settings(server.port, connections=1))
        server.on("EHLO", (Stop.STALL, b"250 script.example\r\n"))
        opening, waiting = (
            asyncio.ensure_future(mailer.send(message(), OpenGate())) for _ in range(2)
        )
        await server.reached("EHLO")
        await mailer.close()
        with pytest.raises(MisuseError, match="closed"):
            await waiting
        server.release.set()
        with pytest.raises(MisuseError, match="closed"):
            await opening
    assert server.received == []


async def test_an_unused_mailer_can_be_closed() -> None:
    await SmtpMailer(settings(25)).close()
