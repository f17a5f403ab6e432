"""Against Postfix, which hands on what it took to a server that keeps it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from mailrace.errors import RejectedError
from mailrace.mail.message import Answer, Stage
from mailrace.mail.providers.smtp import Auth, SmtpMailer, SmtpSettings, Tls
from tests.support.smtp_postfix import Postfix, run_postfix, why_not
from tests.support.smtp_script import PLAIN, ScriptServer
from tests.support.smtp_values import CONTENT, OpenGate, message, settings

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "runs")


@dataclass(frozen=True)
class _Relay:
    postfix: Postfix
    behind: ScriptServer

    def settings(self, **more: Any) -> SmtpSettings:
        known: dict[str, Any] = {"tls": Tls.REQUIRED, "ca_file": self.postfix.certificates.ca_file}
        return settings(self.postfix.port, **known | more)

    def login(self, **more: Any) -> SmtpSettings:
        known = {"user": self.postfix.user, "password": self.postfix.password}
        return self.settings(**known | more)


@pytest.fixture
async def relay() -> AsyncIterator[_Relay]:
    async with ScriptServer(extensions=PLAIN) as behind:
        with run_postfix(behind.port) as postfix:
            yield _Relay(postfix, behind)


def _codes(answers: tuple[Answer, ...]) -> list[tuple[Stage, int, str]]:
    return [
        (each.stage, each.reply.code, each.reply.enhanced) if each.reply else (each.stage, 0, "")
        for each in answers
    ]


TAKEN = (Stage.BODY, 250, "2.0.0")


async def test_messages_pass_through_unchanged_in_every_form(relay: _Relay) -> None:
    for chunking, pipelining in ((True, True), (False, True), (True, False), (False, False)):
        tuned = relay.settings(chunking=chunking, pipelining=pipelining)
        async with SmtpMailer(tuned) as mailer:
            for number in range(3):
                relay.behind.forget()
                content = CONTENT + b".\r\n..\r\n.%d\r\n" % number
                mail = message("nobody@example.net", "bob@example.net", content=content)
                answers = await mailer.send(mail, OpenGate())
                assert _codes(answers) == [(Stage.RCPT, 550, "5.1.1"), TAKEN]
                await relay.behind.reached("BODY")
                got = relay.behind.received[-1]
                assert got.content.endswith(content.partition(b"\r\n\r\n")[2])
                assert got.recipients == ["bob@example.net"]
    assert len(relay.behind.received) == 12
    log = relay.postfix.log.read_text()
    assert log.count(": connect from") == 4
    assert "improper" not in log


async def test_login_lets_mail_out(relay: _Relay) -> None:
    abroad = message("someone@elsewhere.example")
    async with SmtpMailer(relay.settings()) as mailer:
        (answer,) = _codes(await mailer.send(abroad, OpenGate()))
        assert answer == (Stage.RCPT, 554, "5.7.1")
    for mechanism in (Auth.PLAIN, Auth.LOGIN, Auth.CRAM_MD5, None):
        async with SmtpMailer(relay.login(auth=mechanism)) as mailer:
            assert _codes(await mailer.send(abroad, OpenGate())) == [TAKEN]
    for mechanism in (Auth.PLAIN, Auth.LOGIN, Auth.CRAM_MD5):
        async with SmtpMailer(relay.login(auth=mechanism, password="wrong")) as mailer:
            with pytest.raises(RejectedError, match=r"535 5\.7\.8"):
                await mailer.send(abroad, OpenGate())


async def test_smtputf8_8bit_size_and_refusals_on_one_connection(relay: _Relay) -> None:
    async with SmtpMailer(relay.settings()) as mailer:
        bob = message("bob@example.net", content="Subject: é\r\n\r\né\r\n".encode(), smtputf8=True)
        assert _codes(await mailer.send(bob, OpenGate())) == [TAKEN]
        big = message("bob@example.net", content=b"x\r\n" * 40_000)
        assert _codes(await mailer.send(big, OpenGate())) == [(Stage.MAIL, 552, "5.3.4")]
        nobody = message("nobody@example.net", "none@example.net")
        for _ in range(2):  # the second time all in one write, content and all
            refused = [(Stage.RCPT, 550, "5.1.1")] * 2
            assert _codes(await mailer.send(nobody, OpenGate())) == refused
            assert _codes(await mailer.send(bob, OpenGate())) == [TAKEN]
    await relay.behind.reached("BODY")
    assert relay.postfix.log.read_text().count(": connect from") == 1
