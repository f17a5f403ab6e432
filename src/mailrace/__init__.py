"""Mailrace: mail, and any other work, that must go out fast, within limits, and never be lost."""

from importlib.metadata import version

from mailrace.api import send, stream
from mailrace.errors import (
    ConflictError,
    MailraceError,
    MisuseError,
    RejectedError,
    UnavailableError,
)
from mailrace.mail.campaign import Campaign
from mailrace.mail.mime import Attachment, InlineImage
from mailrace.mail.run import Report
from mailrace.pool import Pool

__version__ = version("mailrace")
__all__ = [
    "Attachment",
    "Campaign",
    "ConflictError",
    "InlineImage",
    "MailraceError",
    "MisuseError",
    "Pool",
    "RejectedError",
    "Report",
    "UnavailableError",
    "send",
    "stream",
]
