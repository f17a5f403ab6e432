"""Messages in bytes, compiled once a campaign."""

from mailrace.mail.mime.compiled import CompiledMessage
from mailrace.mail.mime.compiling import compile_message
from mailrace.mail.mime.parts import Attachment, InlineImage

__all__ = ["Attachment", "CompiledMessage", "InlineImage", "compile_message"]
