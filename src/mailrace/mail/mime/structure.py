"""The tree of a message: which parts stand in which multipart (RFC 2046, RFC 2387)."""

import hashlib
from collections.abc import Iterable, Sequence
from itertools import groupby

import msgspec

from mailrace.mail.mime.pieces import Base64Text, Piece, QuotedPrintableText


class Node(msgspec.Struct, frozen=True, gc=False):
    """A part: its headers with CRLF, and its body, which ends in CRLF."""

    headers: bytes
    body: tuple[bytes | Piece, ...]


def text_node(subtype: str, body: QuotedPrintableText | Base64Text) -> Node:
    """A text part in UTF-8."""
    encoding = "base64" if isinstance(body, Base64Text) else "quoted-printable"
    headers = (
        f"Content-Type: text/{subtype}; charset=utf-8\r\nContent-Transfer-Encoding: {encoding}\r\n"
    )
    return Node(headers.encode("ascii"), (body,))


def whole_node(part: bytes) -> Node:
    """A part that is the same for everyone."""
    headers, _, body = part.partition(b"\r\n\r\n")
    return Node(headers + b"\r\n", (body,))


def multipart_node(subtype: str, nodes: Sequence[Node], *, seed: str, parameters: str = "") -> Node:
    """Several parts as one; a single part stays what it is.

    The boundary has `=_`, which no encoding that is used here can make (RFC 2045 section 6.7).

    Args:
        subtype: `mixed`, `related` or `alternative`.
        nodes: At least one part.
        seed: Decides the boundary; the same seed gives the same one.
        parameters: Further ones of Content-Type, each with `; ` before it.
    """
    if len(nodes) == 1:
        return nodes[0]
    boundary = f"=_{hashlib.sha256(f'{subtype} {seed}'.encode()).hexdigest()[:24]}"
    headers = f'Content-Type: multipart/{subtype}{parameters};\r\n boundary="{boundary}"\r\n'
    delimiter = f"--{boundary}\r\n".encode("ascii")
    body: list[bytes | Piece] = []
    for node in nodes:
        body += [delimiter, node.headers, b"\r\n", *node.body, b"\r\n"]
    body.append(f"--{boundary}--\r\n".encode("ascii"))
    return Node(headers.encode("ascii"), tuple(body))


def merged(pieces: Iterable[bytes | Piece]) -> tuple[bytes | Piece, ...]:
    """The same pieces with neighbouring bytes as one."""
    joined: list[bytes | Piece] = []
    for is_bytes, run in groupby(pieces, key=_is_bytes):
        if is_bytes:
            joined.append(b"".join(piece for piece in run if isinstance(piece, bytes)))
        else:
            joined += run
    return tuple(joined)


def _is_bytes(piece: bytes | Piece) -> bool:
    return isinstance(piece, bytes)
