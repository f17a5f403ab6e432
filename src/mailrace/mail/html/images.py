"""Pictures that an HTML template takes from files, to be sent along with it."""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from mailrace.mail.html.masking import MaskedHtml
from mailrace.mail.html.tags import Finder, StartTag, replaced

_NOT_LOCAL: Final = re.compile(r"[a-z][a-z0-9+.-]*:|[/\\#?]|\Z", re.IGNORECASE).match
_ATTRIBUTES: Final = {
    "img": "src",
    "input": "src",
    "table": "background",
    "td": "background",
    "th": "background",
    "body": "background",
}


def local_images(html: str) -> tuple[str, ...]:
    """The relative paths from which a template shows pictures, each once, in their order.

    Absolute paths, URLs and sources with a template tag in them are left alone.

    Raises:
        MisuseError: A template tag is wrong; with the line.
    """
    return tuple(dict.fromkeys(path for _, _, path in _images(MaskedHtml(html))))


def use_inline_images(html: str, content_ids: Mapping[str, str]) -> str:
    """The template with relative paths changed to `cid:`.

    Args:
        html: The template.
        content_ids: Path, as `local_images` gives it, to content id; other paths stay.
    """
    masked = MaskedHtml(html)
    changes = [
        (tag, tag.with_attribute(attribute, f"cid:{content_ids[path]}"))
        for tag, attribute, path in _images(masked)
        if path in content_ids
    ]
    return masked.unmasked(replaced(masked.html, changes))


def _images(masked: MaskedHtml) -> Iterator[tuple[StartTag, str, str]]:
    for tag in Finder(masked.html).start_tags:
        attribute = _ATTRIBUTES.get(tag.name, "")
        path = tag.attribute(attribute) if attribute else None
        if path is not None and not _NOT_LOCAL(path) and not masked.word.search(path):
            yield tag, attribute, path
