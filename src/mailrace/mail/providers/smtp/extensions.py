"""What a server offers in its answer to EHLO (RFC 5321 section 4.1.1.1)."""

from typing import Self

import msgspec


class Extensions(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The extensions this client has a use for.

    Attributes:
        size_bytes: The largest message the server takes; 0 when it names no limit (RFC 1870).
    """

    starttls: bool = False
    pipelining: bool = False
    chunking: bool = False
    eight_bit: bool = False
    smtputf8: bool = False
    size: bool = False
    size_bytes: int = 0
    auth: frozenset[str] = frozenset()

    @classmethod
    def from_hello(cls, text: bytes) -> Self:
        """Reads the text of a 250 to EHLO, whose first line is the server's name."""
        words: dict[str, list[str]] = {}
        for line in text.decode("ascii", "replace").split("\n")[1:]:
            # "AUTH=LOGIN PLAIN" is how servers older than RFC 2554 write it.
            keyword, *values = line.strip().upper().replace("AUTH=", "AUTH ", 1).split() or [""]
            words.setdefault(keyword, []).extend(values)
        limit = next(iter(words.get("SIZE", [])), "")
        return cls(
            starttls="STARTTLS" in words,
            pipelining="PIPELINING" in words,
            chunking="CHUNKING" in words,
            eight_bit="8BITMIME" in words,
            smtputf8="SMTPUTF8" in words,
            size="SIZE" in words,
            size_bytes=int(limit[:18]) if limit.isdigit() else 0,
            auth=frozenset(words.get("AUTH", [])),
        )
