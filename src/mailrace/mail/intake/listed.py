"""Recipients that a program has in hand, as rows."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from mailrace.errors import MisuseError
from mailrace.mail.intake.columns import address_column, variable_names
from mailrace.mail.intake.records import Malformed, Record


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedRows:
    """Mappings of column to value, all with the keys of the first one."""

    name: str
    delimiter: str
    columns: tuple[str, ...]
    variables: tuple[str, ...]
    address_index: int
    rows: tuple[Mapping[str, object], ...]

    def records(self) -> Iterator[Record | Malformed]:
        for line, row in enumerate(self.rows, 1):
            strange = [column for column in self.columns if column not in row]
            strange += [column for column in row if column not in self.columns]
            if strange:
                reason = f"the columns differ from the first row's in {', '.join(strange)}"
                yield Malformed(line, reason, str(dict(row)))
            else:
                yield Record(line, [_text(row[column]) for column in self.columns])


def listed_rows(
    people: Iterable[Mapping[str, object]], *, email_column: str | None = None
) -> ListedRows:
    """Takes mappings as people: `{"email": "ada@example.net", "name": "Ada"}`.

    Args:
        email_column: The key of the address; the usual names are tried when `None`.

    Raises:
        MisuseError: Nobody is there, or none of the keys is for an address.
    """
    rows = tuple(people)
    if not rows:
        raise MisuseError("there are no people to write to", hint="give at least one")
    columns = tuple(rows[0])
    return ListedRows(
        name="people",
        delimiter=",",
        columns=columns,
        variables=variable_names(columns, "people"),
        address_index=address_column(columns, email_column, "people"),
        rows=rows,
    )


def _text(value: object) -> str:
    return "" if value is None else str(value)
