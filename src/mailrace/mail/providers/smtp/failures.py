"""What went wrong with a session, said to a person: foreign exceptions and replies end here."""

import socket
import ssl
from typing import Final

from mailrace.errors import MailraceError, RejectedError, UnavailableError
from mailrace.mail.message import Answer, Reply, Stage
from mailrace.mail.providers.smtp.settings import SmtpSettings, Tls

# Codes of RFC 4954 section 6 and RFC 3207 section 4 (538: RFC 2554): log in first, or use TLS.
_ABOUT_US: Final = {530, 534, 535, 538}


class LostError(UnavailableError):
    """The connection died before the far side could have taken the message."""


class UnusedError(LostError):
    """The connection died before a command of the message was written."""


def shown(reply: Reply) -> str:
    """A reply as the server wrote it, on one line."""
    return " ".join(filter(None, (str(reply.code), reply.enhanced, reply.text)))


def refused(settings: SmtpSettings, what: str, reply: Reply, hint: str) -> MailraceError:
    """A refusal before the first message: 4xx is for later, 5xx for a person."""
    kind = RejectedError if reply.code >= 500 else UnavailableError
    return kind(f"{settings.address} {what}: {shown(reply)}", hint=hint)


def check_welcome(settings: SmtpSettings, answer: Answer) -> None:
    """Tells a refusal of us from a refusal of the message.

    Raises:
        RejectedError: MAIL was refused because of how, or whether, we have logged in.
    """
    reply = answer.reply
    if answer.stage is Stage.MAIL and reply is not None and reply.code in _ABOUT_US:
        known = "check what the user may send and whether TLS is asked for (tls=required)"
        unknown = "give user and password, or tls=required if it is TLS that it asks for"
        hint = known if settings.user else unknown
        raise refused(settings, "takes no mail from us", reply, hint)


def unreachable(settings: SmtpSettings, error: Exception) -> MailraceError:
    """An exception from connecting or from the TLS handshake."""
    address = settings.address
    match error:
        case MailraceError():
            return error
        case ssl.SSLCertVerificationError():
            return RejectedError(
                f"{address} has a certificate that is not trusted: {error.verify_message}",
                hint="correct the host name, or give ca=FILE, or verify=off to do without",
            )
        case ssl.SSLError():
            reason = (error.reason or str(error)).replace("_", " ").lower()
            implicit = settings.tls is Tls.IMPLICIT
            return UnavailableError(
                f"TLS with {address} failed: {reason}",
                hint="for a server with STARTTLS write smtp://" if implicit else "",
            )
        case socket.gaierror():
            return UnavailableError(
                f"no address for {address}: {error.strerror}", hint="check the name and the network"
            )
        case TimeoutError():
            return UnavailableError(
                f"{address} did not answer in time", hint="check host, port and firewall"
            )
        case _:
            reason = " ".join(str(error).split()) or type(error).__name__
            return UnavailableError(f"cannot talk to {address}: {reason}", hint="check the port")
