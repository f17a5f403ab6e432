"""Characters that may not stand in an address, a name or a header value."""

import re
from typing import Final

from mailrace.errors import MisuseError

# C0 with tab, CR, LF and NUL, DEL, C1 with NEL, and the two Unicode line separators: all on which
# `str.splitlines`, a server or a client may end a line. Lone surrogates have no UTF-8.
_FORBIDDEN: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]").search


def check_controls(where: str, text: str) -> None:
    """Lets only text through that cannot begin a new header.

    Args:
        where: What the text is, for the error: a header's name, `address` and so on.
        text: The value as it would be sent.

    Raises:
        MisuseError: It has a control character, a line separator or a lone surrogate.
    """
    if text.isascii() and text.isprintable():
        return
    found = _FORBIDDEN(text)
    if found:
        raise MisuseError(
            f"{where}: control character U+{ord(found.group()):04X} at position {found.start()} in "
            f"{shortened(text)}",
            hint="take it out",
        )


def shortened(text: str, limit: int = 60) -> str:
    """`repr` of a text for an error message, cut to about `limit` characters."""
    return repr(text if len(text) <= limit else text[: limit - 1] + "…")
