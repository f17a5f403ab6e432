"""MIME header parameters in any script and of any length (RFC 2231)."""

import re
from collections.abc import Iterator
from typing import Final

from mailrace.mail.controls import check_controls
from mailrace.mail.headers import quoted

_QUOTED_LIMIT: Final = 60
_SECTION_LIMIT: Final = 54
_ATTRIBUTE_OCTETS: Final = frozenset(
    b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$&+-.^_`{|}~"
)
_PERCENT: Final = tuple(
    chr(octet) if octet in _ATTRIBUTE_OCTETS else f"%{octet:02X}" for octet in range(256)
)
_PLAIN: Final = re.compile("[ -~]*").fullmatch


def encode_parameters(header: str, value: str, parameters: dict[str, str]) -> bytes:
    """One header such as Content-Disposition with its parameters and its CRLF.

    Args:
        header: The header's name.
        value: What stands before the parameters, for example `attachment`.
        parameters: Name to value; values in any script.

    Raises:
        MisuseError: A parameter has control characters.
    """
    pieces = [f"{header}: {value}"]
    for name, text in parameters.items():
        check_controls(f"{header} {name}", text)
        pieces += _encoded(name, text)
    return (";\r\n ".join(pieces) + "\r\n").encode("ascii")


def _encoded(name: str, text: str) -> list[str]:
    # "=?" in a quoted string is taken for an encoded word by readers that should know better.
    if _PLAIN(text) and len(text) <= _QUOTED_LIMIT and "=?" not in text:
        return [f"{name}={quoted(text)}"]
    sections = list(_sections(text))
    if len(sections) == 1:
        return [f"{name}*=utf-8''{sections[0]}"]
    sections[0] = f"utf-8''{sections[0]}"
    return [f"{name}*{number}*={section}" for number, section in enumerate(sections)]


def _sections(text: str) -> Iterator[str]:
    """Whole characters only, for readers that decode each section by itself."""
    section = ""
    for character in text:
        encoded = "".join(_PERCENT[octet] for octet in character.encode("utf-8"))
        if len(section) + len(encoded) > _SECTION_LIMIT:
            yield section
            section = ""
        section += encoded
    yield section
