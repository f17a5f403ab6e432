"""From the greeting to a session that takes messages: EHLO, STARTTLS, AUTH, without I/O."""

from enum import Enum, auto
from typing import Final

from mailrace.errors import RejectedError
from mailrace.mail.message import Reply
from mailrace.mail.providers.smtp.auth import ChallengeError, Exchange, choose
from mailrace.mail.providers.smtp.extensions import Extensions
from mailrace.mail.providers.smtp.failures import refused
from mailrace.mail.providers.smtp.replies import to_reply
from mailrace.mail.providers.smtp.settings import SmtpSettings, Tls
from mailrace.mail.providers.smtp.states import Machine, State, Step


class Signal(Enum):
    """What the shell does next when it is not sending a command."""

    START_TLS = auto()
    READY = auto()


_CREDENTIALS: Final = "check user and password, and that they may send by SMTP"


class Handshake:
    """Decides the next command from each reply.

    Attributes:
        extensions: What the server offers; final once `Signal.READY` was returned.
    """

    def __init__(
        self, settings: SmtpSettings, machine: Machine, *, hello: str, encrypted: bool, tls: Tls
    ) -> None:
        """`tls` may be less than `settings.tls` asks when an opportunistic try has failed."""
        self.extensions = Extensions()
        self._settings = settings
        self._machine = machine
        self._hello = hello.encode()
        self._encrypted = encrypted
        self._tls = tls
        self._extended = True
        self._exchange: Exchange | None = None

    def receive(self, code: int, text: bytes) -> bytes | Signal:
        """Takes the reply to the last command, or the greeting; returns the next command.

        Raises:
            UnavailableError: The server is busy.
            RejectedError: The server refuses us or offers no TLS where it is required, or
                credentials would travel in the clear.
        """
        match self._machine.state:
            case State.GREETING:
                return self._on_greeting(to_reply(code, text))
            case State.HELLO:
                return self._on_hello(code, text)
            case State.STARTTLS:
                return self._on_starttls(to_reply(code, text))
            case State.AUTH:
                return self._on_auth(code, text)
            case state:
                raise AssertionError(state)

    def say_hello(self) -> bytes:
        """EHLO; called by the shell once TLS stands, which makes the session start anew."""
        if self._machine.state is State.HANDSHAKE:
            self._encrypted = True
        self._machine.take(Step.SEND_HELLO)
        verb = b"EHLO" if self._extended else b"HELO"
        return verb + b" " + self._hello + b"\r\n"

    def _on_greeting(self, reply: Reply) -> bytes:
        if reply.code != 220:
            hint = "ask the provider why it refuses this machine" if reply.code >= 500 else ""
            raise refused(self._settings, "does not take connections", reply, hint)
        return self.say_hello()

    def _on_hello(self, code: int, text: bytes) -> bytes | Signal:
        if code // 100 == 2:
            if self._extended:
                self.extensions = Extensions.from_hello(text)
            return self._after_hello()
        if code // 100 == 5 and self._extended:
            self._extended = False  # RFC 5321 section 3.2: a server that knows HELO only
            return self.say_hello()
        hint = "set another name with hello=NAME" if code >= 500 else ""
        what = (
            f"refuses to be greeted as {self._hello.decode()}" if hint else "does not take EHLO now"
        )
        raise refused(self._settings, what, to_reply(code, text), hint)

    def _after_hello(self) -> bytes | Signal:
        if self._encrypted or self._tls is Tls.OFF:
            return self._log_in()
        if self.extensions.starttls:
            self._machine.take(Step.SEND_STARTTLS)
            return b"STARTTLS\r\n"
        return self._without_tls("offers no STARTTLS")

    def _on_starttls(self, reply: Reply) -> bytes | Signal:
        if reply.code == 220:
            self._machine.take(Step.AGREE_ON_TLS)
            return Signal.START_TLS
        if reply.code == 421:
            raise refused(self._settings, "closes at STARTTLS", reply, "")
        if reply.code < 500 and self._tls is Tls.REQUIRED:  # 454: "temporary reason" (RFC 3207)
            raise refused(self._settings, "has no TLS for now", reply, "")
        return self._without_tls(f"refuses STARTTLS ({reply.code} {reply.text})")

    def _without_tls(self, why: str) -> bytes | Signal:
        if self._tls is Tls.REQUIRED:
            raise RejectedError(
                f"{self._settings.address} {why}",
                hint="use smtps:// if it has TLS on that port, or tls=opportunistic to do without",
            )
        return self._log_in()

    def _log_in(self) -> bytes | Signal:
        settings = self._settings
        if not settings.user:
            return self._ready()
        if not self._encrypted and not settings.auth_in_clear:
            raise RejectedError(
                f"{settings.address} would get user and password without TLS",
                hint="use tls=required, or auth-in-clear=yes if the network is trusted",
            )
        offered = self.extensions.auth
        mechanism = choose(settings.auth, offered, encrypted=self._encrypted)
        if mechanism is None:
            names = " ".join(sorted(offered)) or "none"
            raise RejectedError(
                f"{settings.address} has no way to log in that is wanted here; it offers: {names}",
                hint="set auth=MECHANISM to one that it offers, or leave out the credentials",
            )
        self._exchange = Exchange(mechanism, settings.user, settings.password)
        self._machine.take(Step.SEND_AUTH)
        return self._exchange.command()

    def _on_auth(self, code: int, text: bytes) -> bytes | Signal:
        assert self._exchange is not None
        if code // 100 == 2:
            return self._ready()
        if code // 100 == 3:
            try:
                response = self._exchange.respond(text)
            except ChallengeError as error:
                raise RejectedError(
                    f"login at {self._settings.address} failed: {error}",
                    hint="set auth=MECHANISM to another one",
                ) from None
            self._machine.take(Step.SEND_AUTH)
            return response
        reply = to_reply(code, text)
        reply = Reply(code, reply.enhanced, self._exchange.redact(reply.text))
        hint = _CREDENTIALS if code >= 500 else "wait before the next login"
        raise refused(self._settings, "refuses the login", reply, hint)

    def _ready(self) -> Signal:
        self._machine.take(Step.BE_READY)
        self._exchange = None
        return Signal.READY
