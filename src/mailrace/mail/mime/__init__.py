"""Messages in bytes, compiled once a campaign."""

from mailrace.mail.mime.campaign import CompiledMessage, compile_message
from mailrace.mail.mime.parts import Attachment, InlineImage

__all__ = ["Attachment", "CompiledMessage", "InlineImage", "compile_message"]
