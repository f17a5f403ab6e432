"""Encoded words: text in any script inside headers of ASCII (RFC 2047)."""

import binascii
from collections.abc import Iterator
from typing import Final

WORD_LIMIT: Final = 75
_FRAME_LENGTH: Final = len("=?utf-8?q??=")

# Section 5 (3): what may stand for itself in Q even inside a display name; a space becomes "_".
_PLAIN_OCTETS: Final = frozenset(
    b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!*+-/"
)
_Q: Final = tuple(
    "_" if octet == 32 else chr(octet) if octet in _PLAIN_OCTETS else f"={octet:02X}"
    for octet in range(256)
)


def encoded_words(text: str, *, first_limit: int = WORD_LIMIT) -> list[str]:
    """Encodes a text as words of at most 75 characters, each of whole characters.

    White space between the words is not part of the text (section 6.2), so they may be folded
    anywhere. The shorter of Q and B is taken, the same for all words.

    Args:
        text: Any text without lone surrogates.
        first_limit: The longest that the first word may be, where something stands before it.
    """
    octets = text.encode("utf-8")
    q_length = sum(len(_Q[octet]) for octet in octets)
    if q_length <= _base64_length(len(octets)):
        return [f"=?utf-8?q?{_q(piece)}?=" for piece in _split(text, first_limit, in_base64=False)]
    return [f"=?utf-8?b?{_b(piece)}?=" for piece in _split(text, first_limit, in_base64=True)]


def _split(text: str, first_limit: int, *, in_base64: bool) -> Iterator[bytes]:
    room = first_limit - _FRAME_LENGTH
    piece, length = bytearray(), 0
    for character in text:
        octets = character.encode("utf-8")
        grown = (
            _base64_length(len(piece) + len(octets))
            if in_base64
            else length + sum(len(_Q[octet]) for octet in octets)
        )
        if grown > room and piece:
            yield bytes(piece)
            room = WORD_LIMIT - _FRAME_LENGTH
            piece.clear()
            grown = (
                _base64_length(len(octets))
                if in_base64
                else sum(len(_Q[octet]) for octet in octets)
            )
        piece += octets
        length = grown
    yield bytes(piece)


def _base64_length(octets: int) -> int:
    return (octets + 2) // 3 * 4


def _q(piece: bytes) -> str:
    return "".join(_Q[octet] for octet in piece)


def _b(piece: bytes) -> str:
    return binascii.b2a_base64(piece, newline=False).decode("ascii")
