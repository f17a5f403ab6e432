"""What an SMTP provider is set to; a value, checked as a whole."""

import ipaddress
import math
import re
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Final, Self

from mailrace.errors import MisuseError

_HOST: Final = re.compile(r"[\w.:%-]{1,255}")
_HELLO: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,253}[A-Za-z0-9])?|\[[0-9A-Za-z:.]+\]")


class Tls(StrEnum):
    """How much encryption is insisted on.

    REQUIRED: STARTTLS or nothing. OPPORTUNISTIC: STARTTLS if it can be had (RFC 7435). OFF: never.
    IMPLICIT: TLS from the first byte, the `smtps` scheme (RFC 8314).
    """

    REQUIRED = "required"
    OPPORTUNISTIC = "opportunistic"
    OFF = "off"
    IMPLICIT = "implicit"


class Auth(StrEnum):
    """Ways to authenticate."""

    PLAIN = "plain"
    LOGIN = "login"
    CRAM_MD5 = "cram-md5"
    XOAUTH2 = "xoauth2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long to wait at each stage, in seconds.

    The defaults are the least that RFC 5321 section 4.5.3.2 allows; `connect_s` and `quit_s`, on
    which it is silent, are Postfix's and our own. A short `final_s` makes duplicates (RFC 1047).
    """

    connect_s: float = 30
    greeting_s: float = 300
    command_s: float = 300
    mail_s: float = 300
    rcpt_s: float = 300
    data_s: float = 120
    block_s: float = 180
    final_s: float = 600
    quit_s: float = 2

    def __post_init__(self) -> None:
        for each in fields(self):
            if not 0 < getattr(self, each.name) < math.inf:
                raise MisuseError(f"timeout {each.name} must be more than 0 seconds")

    def scaled_to(self, seconds: float) -> Self:
        """The same proportions with an ordinary reply (MAIL, RCPT) awaited for `seconds`."""
        factor = seconds / self.mail_s
        return replace(
            self,
            **{each.name: getattr(self, each.name) * factor for each in fields(self)}
            | {"quit_s": self.quit_s},
        )

    @property
    def shortest_s(self) -> float:
        return float(min(getattr(self, each.name) for each in fields(self)))


@dataclass(frozen=True, slots=True, kw_only=True)
class SmtpSettings:
    """An account at an SMTP relay, or a server that needs none.

    Attributes:
        host: Name or address, an IPv6 address without brackets.
        verify: Whether to check the certificate; see `checks_certificate`.
        ca_file: PEM file with the authorities to trust instead of the system's.
        password: The secret; the access token for XOAUTH2. Never shown.
        auth: Mechanism to use; `None` for the best the server offers.
        auth_in_clear: Whether credentials may be sent without TLS.
        hello: Name for EHLO; `None` for the machine's full name, or its address if it has none.
        messages: Messages a connection before it is replaced.
        idle_s: Seconds a connection may be kept unused.
        connections: Most connections at once; `None` for as many as there are callers.
    """

    host: str
    port: int
    tls: Tls = Tls.REQUIRED
    verify: bool = True
    ca_file: Path | None = None
    user: str = ""
    password: str = field(default="", repr=False)
    auth: Auth | None = None
    auth_in_clear: bool = False
    hello: str | None = None
    messages: int = 100
    idle_s: float = 60
    connections: int | None = None
    pipelining: bool = True
    chunking: bool = True
    timeouts: Timeouts = Timeouts()

    def __post_init__(self) -> None:
        for problem, hint in self._problems():
            raise MisuseError(problem, hint=hint)

    @property
    def address(self) -> str:
        """`host:port` as people write it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def checks_certificate(self) -> bool:
        """Whether a wrong certificate ends the session.

        An opportunistic session without credentials would go on in the clear, which is worse than
        an unknown certificate, so there it is checked only against a `ca_file` (RFC 7435).
        """
        if self.tls is Tls.OPPORTUNISTIC and not self.user and self.ca_file is None:
            return False
        return self.verify

    def _problems(self) -> list[tuple[str, str]]:
        """Everything that is wrong, as problem and hint."""
        most, user, password = self.connections, self.user, self.password
        pair = "give both or neither"
        rules = (
            (not _HOST.fullmatch(self.host), "SMTP host is missing or not a host name", ""),
            (not 0 < self.port < 65536, f"SMTP port {self.port} is not from 1 to 65535", ""),
            (bool(user) != bool(password), "SMTP user or password is missing", pair),
            ("\0" in user + password, "SMTP user or password contains NUL", ""),
            (self.auth is not None and not user, f"auth={self.auth} needs a user", pair),
            (
                self.hello is not None and not _HELLO.fullmatch(self.hello),
                f"hello={self.hello!r} is not a host name or [address]",
                "",
            ),
            (self.messages < 1, f"messages={self.messages} must be at least 1", ""),
            (most is not None and most < 1, f"connections={most} must be at least 1", ""),
            (not 0 < self.idle_s < math.inf, f"idle={self.idle_s:g} must be above 0 seconds", ""),
            (
                self.tls is Tls.OFF and (self.ca_file is not None or not self.verify),
                "verify and ca mean nothing with tls=off",
                "leave them out",
            ),
        )
        return [(problem, hint) for wrong, problem, hint in rules if wrong]


def is_loopback(host: str) -> bool:
    """Whether `host` can only be this machine, without asking DNS (RFC 6761 section 6.3)."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
