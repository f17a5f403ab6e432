"""`--preview`: messages as the people who get them will read them."""

from email import message_from_bytes, policy
from email.message import EmailMessage
from itertools import islice

import msgspec

from mailrace.mail.intake import Recipient, read_recipients
from mailrace.mail.sending import Checked, write

_HIDDEN = ("content-type", "content-transfer-encoding", "mime-version", "message-id", "date")


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """One message, decoded; what `--preview N --json` lists.

    Attributes:
        headers: Name and value, without those that only machines read.
        files: Media type and name of pictures and attachments.
    """

    to: str
    headers: list[tuple[str, str]]
    text: str
    html: str | None
    files: list[tuple[str, str]]


def preview(checked: Checked, count: int) -> list[Preview]:
    """The first messages, in the order of the file."""
    compiled = checked.campaign.compile("preview")
    people = (one for one in read_recipients(checked.people) if isinstance(one, Recipient))
    return [
        _preview(one.address, write(compiled, one, "preview", date_s=0).content)
        for one in islice(people, count)
    ]


def _preview(address: str, content: bytes) -> Preview:
    message = message_from_bytes(content, policy=policy.default)
    return Preview(
        to=address,
        headers=[(name, str(v)) for name, v in message.items() if name.lower() not in _HIDDEN],
        text=_body(message, "plain") or "",
        html=_body(message, "html"),
        files=[
            (part.get_content_type(), part.get_filename() or "")
            for part in message.walk()
            if part.get_content_maintype() not in {"text", "multipart"} or part.get_filename()
        ],
    )


def _body(message: EmailMessage, kind: str) -> str | None:
    part = message.get_body((kind,))
    return None if part is None else "\n".join(str(part.get_content()).splitlines())


def preview_lines(messages: list[Preview]) -> list[str]:
    """The messages with their text parts, one after the other."""
    lines: list[str] = []
    for message in messages:
        lines += [f"{name}: {value}" for name, value in message.headers]
        lines += ["", message.text or message.html or ""]
        lines += [f"[{media_type} {name}]".replace(" ]", "]") for media_type, name in message.files]
        lines.append("-" * 72)
    return lines
