"""Recipients out of text: what every test of the intake reads through."""

from pathlib import Path

from mailrace.mail.intake import (
    Recipient,
    Rejected,
    Table,
    open_table,
    read_recipients,
)


def table_of(directory: Path, content: str | bytes, email_column: str | None = None) -> Table:
    path = directory / "people.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return open_table(path, email_column=email_column, name="people.csv")


def read(
    directory: Path, content: str | bytes, email_column: str | None = None
) -> list[Recipient | Rejected]:
    return list(read_recipients(table_of(directory, content, email_column)))


def good(results: list[Recipient | Rejected]) -> list[Recipient]:
    return [result for result in results if isinstance(result, Recipient)]


def bad(results: list[Recipient | Rejected]) -> list[Rejected]:
    return [result for result in results if isinstance(result, Rejected)]


def reasons(directory: Path, content: str | bytes) -> list[tuple[int, str]]:
    return [(result.line, result.reason) for result in bad(read(directory, content))]
