"""What a message may carry beside its text: attachments and inline images."""

import re
from typing import Final

import msgspec

from mailrace.errors import MisuseError
from mailrace.mail.controls import check_controls, shortened
from mailrace.mail.encoding import base64_lines
from mailrace.mail.parameters import encode_parameters

_MEDIA_TYPE: Final = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,60}/[A-Za-z0-9!#$&^_.+-]{1,60}").fullmatch
_CONTENT_ID: Final = re.compile(r"[A-Za-z0-9._+@-]{1,100}").fullmatch
# RFC 2046 sections 5.1 and 5.2.1: these may not be base64, so they travel as plain octets.
_COMPOSITE: Final = ("message/", "multipart/")


class Attachment(msgspec.Struct, frozen=True, kw_only=True):
    """A file that goes along.

    Attributes:
        file_name: Name without a folder, in any script.
        media_type: For example `application/pdf`; `message/…`, `multipart/…` and `text/…` that is
            not UTF-8 are sent as `application/octet-stream`.
        content: The file.
    """

    file_name: str
    media_type: str = "application/octet-stream"
    content: bytes

    def __post_init__(self) -> None:
        check_controls("attachment name", self.file_name)
        if not self.file_name.strip():
            raise MisuseError("an attachment has no name")
        _check_media_type(self.media_type)


class InlineImage(msgspec.Struct, frozen=True, kw_only=True):
    """A picture that the HTML part shows as `<img src="cid:…">`.

    Attributes:
        content_id: What stands after `cid:`.
        media_type: For example `image/png`.
        content: The file.
        file_name: Shown by some mail programs; may be empty.
    """

    content_id: str
    media_type: str
    content: bytes
    file_name: str = ""

    def __post_init__(self) -> None:
        if not _CONTENT_ID(self.content_id):
            raise MisuseError(
                f"{shortened(self.content_id)} is not a content id",
                hint="use letters, digits and . _ + @ -",
            )
        check_controls("image name", self.file_name)
        _check_media_type(self.media_type)


def _check_media_type(media_type: str) -> None:
    if not _MEDIA_TYPE(media_type):
        raise MisuseError(
            f"{shortened(media_type)} is not a media type", hint="for example application/pdf"
        )


def attachment_part(attachment: Attachment) -> bytes:
    """An attachment as a MIME part: headers, empty line, base64."""
    media_type = _sent_as(attachment)
    headers = f"Content-Type: {media_type}\r\nContent-Transfer-Encoding: base64\r\n".encode("ascii")
    disposition = encode_parameters(
        "Content-Disposition", "attachment", {"filename": attachment.file_name}
    )
    return headers + disposition + b"\r\n" + base64_lines(attachment.content)


def _sent_as(attachment: Attachment) -> str:
    media_type = attachment.media_type.lower()
    if media_type.startswith(_COMPOSITE):
        return "application/octet-stream"
    if not media_type.startswith("text/"):
        return media_type
    try:
        attachment.content.decode()
    except UnicodeDecodeError:
        # RFC 2046 section 4.1.2: without a charset it would be taken for ASCII.
        return "application/octet-stream"
    return f"{media_type}; charset=utf-8"


def inline_image_part(image: InlineImage) -> bytes:
    """An inline image as a MIME part: headers, empty line, base64."""
    headers = (
        f"Content-Type: {image.media_type.lower()}\r\nContent-Transfer-Encoding: base64\r\n"
        f"Content-ID: <{image.content_id}>\r\n"
    ).encode("ascii")
    names = {"filename": image.file_name} if image.file_name else {}
    disposition = encode_parameters("Content-Disposition", "inline", names)
    return headers + disposition + b"\r\n" + base64_lines(image.content)
