"""What went wrong with a session, said to a person: foreign exceptions and replies end here."""

import socket
import ssl

from mailrace.errors import MailraceError, RejectedError, UnavailableError
from mailrace.mail.message import Reply
from mailrace.mail.providers.smtp.settings import SmtpSettings, Tls


class LostError(UnavailableError):
    """The connection died before the far side could have taken the message."""


def shown(reply: Reply) -> str:
    """A reply as the server wrote it, on one line."""
    return " ".join(filter(None, (str(reply.code), reply.enhanced, reply.text)))


def refused(settings: SmtpSettings, what: str, reply: Reply, hint: str) -> MailraceError:
    """A refusal before the first message: 4xx is for later, 5xx for a person."""
    kind = RejectedError if reply.code >= 500 else UnavailableError
    return kind(f"{settings.address} {what}: {shown(reply)}", hint=hint)


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
