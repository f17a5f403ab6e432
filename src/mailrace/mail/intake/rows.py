"""Where recipients come from, as the rest of the intake sees it."""

from collections.abc import Iterator
from typing import Protocol

from mailrace.mail.intake.records import Malformed, Record


class Rows(Protocol):
    """Rows under a header; can be read more than once.

    Attributes:
        name: What to call them in errors.
        delimiter: What a file of rejected rows puts between cells.
        columns: Names as they were given.
        variables: The template variable for each column.
        address_index: The column with the address.
    """

    @property
    def name(self) -> str: ...

    @property
    def delimiter(self) -> str: ...

    @property
    def columns(self) -> tuple[str, ...]: ...

    @property
    def variables(self) -> tuple[str, ...]: ...

    @property
    def address_index(self) -> int: ...

    def records(self) -> Iterator[Record | Malformed]:
        """Yields the rows from the beginning at every call.

        Raises:
            MisuseError: They are gone, or not what they should be.
        """
        ...
