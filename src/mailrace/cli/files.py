"""What `send` is given as files: templates, pictures, attachments."""

import mimetypes
from pathlib import Path

from mailrace.errors import MisuseError
from mailrace.mail.html import local_images, use_inline_images
from mailrace.mail.mime import Attachment, InlineImage


def read_html(path: Path) -> tuple[str, tuple[InlineImage, ...]]:
    """Reads an HTML template and the pictures beside it that it shows.

    Raises:
        MisuseError: A file is missing, unreadable or not UTF-8.
    """
    html = read_template(path)
    images = [
        _picture(path.parent / name, number) for number, name in enumerate(local_images(html), 1)
    ]
    content_ids = {
        name: image.content_id for name, image in zip(local_images(html), images, strict=True)
    }
    return use_inline_images(html, content_ids), tuple(images)


def read_template(path: Path) -> str:
    try:
        return _read(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MisuseError(f"{path} is not UTF-8", hint="save it as UTF-8") from error


def read_attachment(path: Path) -> Attachment:
    return Attachment(file_name=path.name, media_type=_media_type(path), content=_read(path))


def _picture(path: Path, number: int) -> InlineImage:
    return InlineImage(
        content_id=f"picture{number}",
        media_type=_media_type(path),
        content=_read(path),
        file_name=path.name,
    )


def _media_type(path: Path) -> str:
    media_type, encoding = mimetypes.guess_type(path.name)
    return "application/octet-stream" if media_type is None or encoding else media_type


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise MisuseError(
            f"{path} cannot be read: {error.strerror}", hint="check the path"
        ) from error
