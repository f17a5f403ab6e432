"""SASL exchanges as SMTP carries them (RFC 4954), without I/O."""

import base64
import binascii
import hmac
from collections.abc import Set as AbstractSet
from typing import Final

from mailrace.mail.providers.smtp.settings import Auth

# Under TLS the plain mechanisms are as safe as any, cost the fewest round trips and work with
# servers that keep hashed passwords; in the clear the one that does not show the password leads.
_UNDER_TLS: Final = (Auth.PLAIN, Auth.LOGIN, Auth.CRAM_MD5)
_IN_CLEAR: Final = (Auth.CRAM_MD5, Auth.PLAIN, Auth.LOGIN)


class ChallengeError(Exception):
    """The server's challenge cannot be answered."""


def choose(wanted: Auth | None, offered: AbstractSet[str], *, encrypted: bool) -> Auth | None:
    """The mechanism to use, or `None` if there is none in common.

    XOAUTH2 is only taken when asked for, because it reads the password as an access token.
    """
    order = (wanted,) if wanted else _UNDER_TLS if encrypted else _IN_CLEAR
    return next((each for each in order if each.upper() in offered), None)


class Exchange:
    """One authentication: the command, then an answer to each challenge."""

    __slots__ = ("_mechanism", "_password", "_round", "_user")

    def __init__(self, mechanism: Auth, user: str, password: str) -> None:
        self._mechanism = mechanism
        self._user = user.encode()
        self._password = password.encode()
        self._round = 0

    def command(self) -> bytes:
        """The AUTH command, with the first response where the mechanism begins with ours."""
        match self._mechanism:
            case Auth.PLAIN:
                first = b"\0" + self._user + b"\0" + self._password
            case Auth.XOAUTH2:
                first = b"user=" + self._user + b"\x01auth=Bearer " + self._password + b"\x01\x01"
            case _:
                return b"AUTH " + self._mechanism.upper().encode() + b"\r\n"
        return b"AUTH %b %b\r\n" % (
            self._mechanism.upper().encode(),
            base64.b64encode(first),
        )

    def respond(self, challenge: bytes) -> bytes:
        """The line that answers a 334 whose text was `challenge`.

        Raises:
            ChallengeError: The challenge is not base64, or one more than the mechanism has.
        """
        self._round += 1
        match self._mechanism, self._round:
            case Auth.LOGIN, 1:
                answer = self._user
            case Auth.LOGIN, 2:
                answer = self._password
            case Auth.CRAM_MD5, 1:
                digest = hmac.new(self._password, _decoded(challenge), "md5").hexdigest()
                answer = self._user + b" " + digest.encode()
            case Auth.XOAUTH2, 1:
                answer = b""  # the challenge is an error; an empty answer brings the 535
            case _:
                raise ChallengeError("the server asks for more than the mechanism has")
        return base64.b64encode(answer) + b"\r\n"

    def redact(self, text: str) -> str:
        """`text` without the secret, for servers that repeat the line they refuse."""
        secrets = [self._password.decode()]
        secrets += [base64.b64encode(self._password).decode().rstrip("=")]
        if self._mechanism in {Auth.PLAIN, Auth.XOAUTH2}:
            secrets.append(self.command().decode().split()[2].rstrip("="))
        for secret in sorted(secrets, key=len, reverse=True):
            text = text.replace(secret, "***")
        return text


def _decoded(challenge: bytes) -> bytes:
    try:
        return base64.b64decode(challenge, validate=True)
    except binascii.Error:
        raise ChallengeError("the server's challenge is not base64") from None
