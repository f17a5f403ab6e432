"""`--preview`: messages as the people who get them will read them."""

from email import message_from_bytes, policy
from itertools import islice

from mailrace.mail.intake import Recipient, read_recipients
from mailrace.mail.sending import Checked, write

_HEADERS = ("From", "To", "Reply-To", "Subject", "List-Unsubscribe")


def preview_lines(checked: Checked, count: int) -> list[str]:
    """The headers and the text of the first messages."""
    compiled = checked.campaign.compile("preview")
    people = (one for one in read_recipients(checked.people) if isinstance(one, Recipient))
    lines: list[str] = []
    for one in islice(people, count):
        message = write(compiled, one, "preview", date_s=0)
        lines += [*_readable(message.content), "-" * 72]
    return lines


def _readable(content: bytes) -> list[str]:
    message = message_from_bytes(content, policy=policy.default)
    own = [name for name in message if name.lower().startswith("x-")]
    lines = [f"{name}: {message[name]}" for name in (*_HEADERS, *own) if name in message]
    body = message.get_body(("plain", "html"))
    parts = [
        f"[{part.get_content_type()} {part.get_filename() or ''}]".replace(" ]", "]")
        for part in message.walk()
        if not part.is_multipart() and part.get_content_maintype() != "text"
    ]
    text = body.get_content() if body is not None else ""
    return [*lines, "", text.rstrip("\n"), *parts]
