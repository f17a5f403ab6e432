"""Messages, gates and settings for the tests of the SMTP client."""

from collections.abc import Callable
from typing import Any

from mailrace.clock import Alarm
from mailrace.mail.message import Message
from mailrace.mail.providers.smtp import SmtpSettings, Timeouts, Tls

CONTENT = b"From: ann@example.com\r\nSubject: hello\r\n\r\nline one\r\n.starts with a dot\r\n"

# Far above what loopback takes, far below what a person waits.
QUICK = Timeouts(
    connect_s=5,
    greeting_s=5,
    command_s=5,
    mail_s=5,
    rcpt_s=5,
    data_s=5,
    block_s=5,
    final_s=5,
    quit_s=1,
)


def message(*recipients: str, content: bytes = CONTENT, smtputf8: bool = False) -> Message:
    return Message(
        sender="ann@example.com",
        recipients=recipients or ("bob@example.net",),
        content=content,
        smtputf8=smtputf8,
    )


def settings(port: int, *, tls: Tls = Tls.OFF, **more: Any) -> SmtpSettings:
    known: dict[str, Any] = {"host": "127.0.0.1", "port": port, "tls": tls, "timeouts": QUICK}
    return SmtpSettings(**known | more)


class OpenGate:
    """Lets everything out and counts."""

    def __init__(self) -> None:
        self.permits = 0
        self.commits = 0

    async def permit(self) -> None:
        self.permits += 1

    def commit(self) -> None:
        self.commits += 1


class FakeClock:
    """Time that stands until it is moved."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic_s(self) -> float:
        return self.now_s

    def unix_s(self) -> float:
        return self.now_s

    async def sleep_s(self, seconds: float) -> None:
        raise NotImplementedError

    def call_at_s(self, at_s: float, callback: Callable[[], object]) -> Alarm:
        raise NotImplementedError
