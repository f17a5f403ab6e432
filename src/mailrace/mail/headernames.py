"""Which headers a caller may set."""

import re
from typing import Final

from mailrace.errors import MisuseError
from mailrace.mail.controls import shortened

# RFC 5322 section 3.6.8: printable ASCII without the colon; 50 leaves room for an encoded word.
_NAME: Final = re.compile(r"[!-9;-~]{1,50}").fullmatch

# What a message says about itself, its way and its signatures is ours or a server's to write.
_RESERVED: Final = frozenset(
    (
        "from",
        "sender",
        "to",
        "cc",
        "bcc",
        "apparently-to",
        "date",
        "message-id",
        "subject",
        "mime-version",
        "return-path",
        "received",
        "received-spf",
        "delivered-to",
        "dkim-signature",
        "domainkey-signature",
        "authentication-results",
        "arc-seal",
        "arc-message-signature",
        "arc-authentication-results",
    )
)
_RESERVED_FAMILIES: Final = ("content-", "resent-")
_OPTIONS: Final = {
    "reply-to": "give it as the reply-to address",
    "list-unsubscribe": "give it as the unsubscribe URL",
    "list-unsubscribe-post": "it is made from the unsubscribe URL",
}


_PHRASED: Final = ("disposition-notification-to", "errors-to", "return-receipt-to")
_ASCII_ONLY: Final = ("references", "in-reply-to", "feedback-id")


def is_structured(name: str) -> bool:
    """Whether a header has a grammar of its own, so that it may not be encoded as a whole."""
    folded = name.lower()
    return folded in _PHRASED or folded in _ASCII_ONLY or folded.startswith("list-")


def has_phrase(name: str) -> bool:
    """Whether a structured header may have words before its `<…>` (RFC 2919, RFC 8098)."""
    return name.lower() not in _ASCII_ONLY


def check_header_name(name: str) -> None:
    """Lets a caller's own header name through.

    Raises:
        MisuseError: It is not a header name, or not for callers to set.
    """
    if not _NAME(name):
        raise MisuseError(
            f"{shortened(name)} is not a header name",
            hint="use at most 50 printable ASCII characters, no space, no colon",
        )
    folded = name.lower()
    if folded in _OPTIONS:
        raise MisuseError(f"the header {name} has its own option", hint=_OPTIONS[folded])
    if folded in _RESERVED or folded.startswith(_RESERVED_FAMILIES):
        raise MisuseError(f"the header {name} cannot be set", hint="leave it out")
