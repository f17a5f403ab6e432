import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailrace.errors import MisuseError
from mailrace.mail.intake import (
    Recipient,
    Rejected,
)
from tests.support.intake import bad, good, read

CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029]")


CELLS = st.text(st.characters(codec="utf-8"), max_size=20) | st.text(
    st.sampled_from("\"',;\t\r\n a"), max_size=8
)
property_settings = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@st.composite
def tables(draw: st.DrawFn) -> tuple[bytes, list[list[str]]]:
    """A file that `csv.writer` wrote, and the values that went in."""
    width = draw(st.integers(0, 4))
    rows = draw(st.lists(st.lists(CELLS, min_size=width, max_size=width), max_size=8))
    out = io.StringIO(newline="")
    minimal = draw(st.booleans())
    # Quoting as little as it can, the writer of 3.11 leaves those line ends bare that are not its
    # own, so it gets both.
    ends = ["\r\n"] if minimal else ["\n", "\r\n", "\r"]
    writer = csv.writer(
        out,
        delimiter=draw(st.sampled_from(",;\t")),
        quoting=csv.QUOTE_MINIMAL if minimal else csv.QUOTE_ALL,
        lineterminator=draw(st.sampled_from(ends)),
    )
    writer.writerow(["email", *(f"column {index}" for index in range(width))])
    for index, row in enumerate(rows):
        writer.writerow([f"u{index}@example.com", *row])
    mark = draw(st.sampled_from(["", "\ufeff"]))
    return (mark + out.getvalue()).encode(), rows


@property_settings
@given(case=tables())
def test_what_csv_writer_writes_comes_back(
    tmp_path: Path, case: tuple[bytes, list[list[str]]]
) -> None:
    content, rows = case
    results = read(tmp_path, content)
    assert len(results) == len(rows)
    for index, (result, row) in enumerate(zip(results, rows, strict=True)):
        if CONTROLS.search("".join(row)):
            assert isinstance(result, Rejected)
            assert result.reason.startswith("control character")
            continue
        assert isinstance(result, Recipient)
        values = [cell.replace("\r\n", "\n").replace("\r", "\n") for cell in row]
        assert list(result.variables.values()) == [f"u{index}@example.com", *values]


def pieces() -> Iterator[bytes]:
    yield from (b'"', b",", b";", b"\t", b"\n", b"\r", b"\r\n", b"\0", b"\xff", b"\xef\xbb\xbf")
    yield from (b"a@example.com", b"email", "é".encode(), b" ", b"<", b">")


@property_settings
@given(
    head=st.sampled_from([b"", b"email\n", b"email,x\n", b"email;x\r\n"]),
    content=st.binary(max_size=200)
    | st.lists(st.sampled_from(list(pieces())), max_size=40).map(b"".join),
)
def test_no_bytes_crash(tmp_path: Path, head: bytes, content: bytes) -> None:
    refused: list[str] = []
    results: list[Recipient | Rejected] = []
    try:
        results = read(tmp_path, head + content)
    except MisuseError as error:
        refused = str(error).splitlines()
    assert len(refused) <= 1
    lines = [result.line for result in results]
    assert lines == sorted(set(lines))
    assert all(len(r.reason.splitlines()) == 1 for r in bad(results))
    for one in good(results):
        assert "@" in one.address
        assert not CONTROLS.search("".join(one.variables.values()))
