"""Mail addresses: checked, in one normal form, with their domain as A-labels."""

import re
import unicodedata
from typing import Final

import msgspec
from email_validator import EmailNotValidError, validate_email

from mailrace.errors import MisuseError
from mailrace.mail.controls import check_controls

# The plain case, which is nearly every address: a dot-atom of at most 64, then letter-digit-hyphen
# labels of at most 63, at least two of them, the last one not only digits. `xn--` labels are left
# to the library, which knows whether they decode. 254 is the limit of RFC 3696 erratum 1690.
_PLAIN: Final = re.compile(
    r"(?=.{3,254}\Z)(?=[^@]{1,64}@)"
    r"[A-Za-z0-9_!#$%&'*+\-/=?^`{|}~]+(?:\.[A-Za-z0-9_!#$%&'*+\-/=?^`{|}~]+)*"
    r"@(?:(?!xn--)[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+"
    r"(?!xn--|[0-9]+\Z)[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?",
    re.IGNORECASE | re.ASCII,
).fullmatch


class Mailbox(msgspec.Struct, frozen=True, gc=False):
    """A display name and an address (RFC 5322 section 3.4); a value of this type is valid.

    Attributes:
        address: In the form that `check_address` returns.
        name: Display name as people write it, not encoded; may be empty.

    Raises:
        MisuseError: The address is not in that form, or the name has control characters.
    """

    address: str
    name: str = ""

    def __post_init__(self) -> None:
        if check_address(self.address) != self.address:
            raise MisuseError(
                f"{self.address!r} is not in normal form", hint="make mailboxes with parse_mailbox"
            )
        if self.name:
            check_controls("display name", self.name)

    @property
    def domain(self) -> str:
        return self.address.rpartition("@")[2]

    @property
    def needs_smtputf8(self) -> bool:
        """Whether the local part is not ASCII, so that mail to it needs SMTPUTF8 (RFC 6531)."""
        return not self.address.isascii()


def check_address(text: str) -> str:
    """Checks an address and returns its normal form.

    The domain comes back in lower case and as A-labels, the local part as it is (Unicode NFC). No
    name server is asked. Quoted local parts and bracketed IP addresses are refused, names that are
    reserved for tests (`example.net`, `.test`) are not.

    Raises:
        MisuseError: With the reason in one line.
    """
    if _PLAIN(text):
        local, _, domain = text.partition("@")
        return f"{local}@{domain.lower()}"
    return _check_uncommon(text)


def _check_uncommon(text: str) -> str:
    check_controls("address", text)
    domain = text.rpartition("@")[2]
    if "@" not in text:
        raise MisuseError(f"no @ in {text!r}")
    if domain.isascii() and "." not in domain.strip("."):
        raise MisuseError(f"no dot in the domain of {text!r}")
    try:
        parsed = validate_email(
            text, check_deliverability=False, allow_smtputf8=True, strict=True,
            globally_deliverable=False, test_environment=True,
        )  # fmt: skip
    except EmailNotValidError as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise MisuseError(f"{text!r} is not a mail address: {reason}") from error
    domain = parsed.ascii_domain.lower()
    if domain.rpartition(".")[2].isdigit():
        raise MisuseError(f"the domain of {text!r} ends in a number")
    address = f"{parsed.local_part}@{domain}"
    check_controls("address", address)
    return address


def parse_mailbox(text: str) -> Mailbox:
    """Reads `ann@example.com`, `Ann <ann@example.com>` or `"Doe, Ann" <ann@example.com>`.

    Raises:
        MisuseError: With the reason in one line.
    """
    check_controls("mailbox", text)
    text = text.strip()
    if not text.endswith(">"):
        return Mailbox(check_address(text))
    name, bracket, address = text[:-1].rpartition("<")
    if not bracket:
        raise MisuseError(
            f"no < before the address in {text!r}", hint="write: Ann <ann@example.com>"
        )
    return Mailbox(check_address(address.strip()), _unquote(name.strip()))


def _unquote(name: str) -> str:
    if len(name) > 1 and name[0] == name[-1] == '"':
        return re.sub(r"\\(.)", r"\1", name[1:-1])
    return name


def address_key(address: str) -> str:
    """The key under which two spellings of a checked address are the same recipient.

    Case is folded in the local part as well: servers that tell `Ann@` from `ann@` are rarer than
    lists that hold both.
    """
    if address.isascii():
        return address.lower()
    return unicodedata.normalize("NFC", address.casefold())
