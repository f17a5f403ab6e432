"""What the header line of a CSV file says: variable names and where the address is."""

import unicodedata
from collections.abc import Sequence

from mailrace.errors import MisuseError

# In order of trust: "address" alone may be a street.
_ADDRESS_NAMES = (
    {"email", "emailaddress", "emailid"},
    {"mail", "mailaddress"},
    {"recipient", "recipientemail"},
    {"address"},
)


def variable_names(header: Sequence[str], name: str) -> tuple[str, ...]:
    """Returns the template variable for each column.

    A name that is an identifier stays as it is, case included. In others each run of characters
    that an identifier may not have becomes one `_`, none at the ends, and a digit in front gets a
    `_` before it: `First name` is `First_name`, `Price (€)` is `Price`, `2nd` is `_2nd`.

    Raises:
        MisuseError: A column has no name, or two have the same.
    """
    names: dict[str, str] = {}
    for number, column in enumerate(header, 1):
        variable = _identifier(column)
        if not variable:
            what = f"the name {column.strip()!r}" if column.strip() else "no name"
            hint = "give it one that has a letter or digit, or remove the column"
            raise MisuseError(f"column {number} of {name} has {what}", hint=hint)
        if variable in names:
            both = f"{names[variable]!r} and {column.strip()!r}"
            problem = f"two columns of {name} make the variable {variable!r}: {both}"
            raise MisuseError(problem, hint="rename or remove one of them")
        names[variable] = column.strip()
    return tuple(names)


def address_column(header: Sequence[str], wanted: str | None, name: str) -> int:
    """Returns the index of the column with the addresses.

    Args:
        header: Column names as in the file.
        wanted: The column's name or variable, in any case if only one fits; `None` to look for
            the usual names.
        name: What to call the file in errors.

    Raises:
        MisuseError: There is none, or more than one.
    """
    found = _named(header, wanted) if wanted is not None else _usual(header)
    if len(found) == 1:
        return found[0]
    columns = ", ".join(column.strip() for column in header)
    if found:
        problem = f"more than one column of {name} may hold the address ({columns})"
    elif wanted is not None:
        problem = f"{name} has no column {wanted!r}; its columns are: {columns}"
    elif any("@" in column for column in header):
        problem = f"the first line of {name} holds an address instead of column names ({columns})"
        raise MisuseError(problem, hint="put a line such as email,name above it")
    else:
        problem = f"no column of {name} looks like the address; its columns are: {columns}"
    raise MisuseError(problem, hint="name the right one with --email-column")


def has_address_column(header: Sequence[str], wanted: str | None) -> bool:
    """Whether `address_column` would find at least one."""
    return bool(_named(header, wanted) if wanted is not None else _usual(header))


def _identifier(column: str) -> str:
    text = unicodedata.normalize("NFC", column.strip())
    if text.isidentifier():
        return text
    spaced = "".join(c if ("_" + c).isidentifier() and c != "_" else " " for c in text)
    joined = "_".join(spaced.split())
    return joined if not joined or joined.isidentifier() else f"_{joined}"


def _named(header: Sequence[str], wanted: str) -> list[int]:
    wanted = wanted.strip()
    for fits in (
        lambda column: column.strip() == wanted,
        lambda column: _identifier(column) == wanted,
        lambda column: column.strip().casefold() == wanted.casefold(),
    ):
        if found := [index for index, column in enumerate(header) if fits(column)]:
            return found
    return []


def _usual(header: Sequence[str]) -> list[int]:
    bare = ["".join(c for c in column.casefold() if c.isalnum()) for column in header]
    for names in _ADDRESS_NAMES:
        if found := [index for index, column in enumerate(bare) if column in names]:
            return found
    return []
