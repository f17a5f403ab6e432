import csv
import io
import os
import re
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailrace.errors import MisuseError
from mailrace.mail.intake import (
    Recipient,
    Rejected,
    RejectedFile,
    Table,
    open_source,
    open_table,
    read_batches,
    read_recipients,
    rejected_path,
    spool,
    survey,
)
from mailrace.mail.intake.lines import LINE_LIMIT_BYTES, Overlong, read_lines

CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


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


class TestReading:
    def test_a_row_is_address_key_and_variables(self, tmp_path: Path) -> None:
        (ann,) = read(tmp_path, "email,name\n  Ann@Example.com , Ann \n")
        assert ann == Recipient(
            line=2,
            address="Ann@example.com",
            key="ann@example.com",
            variables={"email": "Ann@Example.com", "name": " Ann "},
        )

    @pytest.mark.parametrize("delimiter", [",", ";", "\t"])
    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
    @pytest.mark.parametrize("mark", ["", "\ufeff"])
    def test_delimiters_line_ends_and_byte_order_mark(
        self, tmp_path: Path, delimiter: str, end: str, mark: str
    ) -> None:
        rows = [["email", "name"], ["ann@example.com", "Ann"], ["bob@example.com", "Bob"]]
        text = mark + "".join(delimiter.join(row) + end for row in rows)
        results = read(tmp_path, text)
        assert [(r.line, r.address, r.variables["name"]) for r in good(results)] == [
            (2, "ann@example.com", "Ann"),
            (3, "bob@example.com", "Bob"),
        ]
        assert not bad(results)

    @pytest.mark.parametrize(
        ("header", "delimiter", "columns"),
        [
            ('"email;x",email', ",", ("email;x", "email")),
            ('"Last, first";email', ";", ("Last, first", "email")),
            ("first, last;email;city", ";", ("first, last", "email", "city")),
            ("email;a,b,c,d", ";", ("email", "a,b,c,d")),
            ('"na\nme"\temail', "\t", ("na me", "email")),
            ("email", ",", ("email",)),
        ],
    )
    def test_the_delimiter_is_seen_in_the_header(
        self, tmp_path: Path, header: str, delimiter: str, columns: tuple[str, ...]
    ) -> None:
        table = table_of(tmp_path, header + "\n")
        assert (table.delimiter, table.columns) == (delimiter, columns)

    def test_a_named_column_decides_the_delimiter_too(self, tmp_path: Path) -> None:
        table = table_of(tmp_path, "a,b,c;to\n", email_column="to")
        assert (table.delimiter, table.columns) == (";", ("a,b,c", "to"))

    def test_quoted_newlines_are_data_with_lf_and_lines_are_counted(self, tmp_path: Path) -> None:
        text = 'email,note\r\na@example.com,"1\r\n2\r3\n4"\r\nb@example.com,x\r\n'
        first, second = good(read(tmp_path, text))
        assert (first.line, first.variables["note"]) == (2, "1\n2\n3\n4")
        assert second.line == 6

    def test_other_separators_of_unicode_do_not_end_a_line(self, tmp_path: Path) -> None:
        (ann,) = good(read(tmp_path, "email,note\nann@example.com,1\u20282\x853\n"))
        assert ann.variables["note"] == "1\u20282\x853"

    def test_blank_lines_are_no_rows_but_count_as_lines(self, tmp_path: Path) -> None:
        (ann,) = read(tmp_path, "\n \nemail,name\n\n   \nann@example.com,Ann\n\n\n")
        assert ann.line == 6

    def test_a_display_name_beside_the_address_is_left_out(self, tmp_path: Path) -> None:
        (ann,) = good(read(tmp_path, 'email,x\n"Doe, Ann <ann@Example.com>",1\n'))
        assert (ann.address, ann.variables["email"]) == ("ann@example.com", "ann@example.com")

    def test_domains_become_a_labels_and_the_variable_stays_readable(self, tmp_path: Path) -> None:
        (ann,) = good(read(tmp_path, "email\nann@bücher.example\n"))
        assert ann.address == "ann@xn--bcher-kva.example"
        assert ann.variables["email"] == "ann@bücher.example"

    def test_a_file_without_a_line_end_at_its_end(self, tmp_path: Path) -> None:
        assert len(good(read(tmp_path, "email\nann@example.com"))) == 1

    def test_lines_across_chunks(self, tmp_path: Path) -> None:
        wide = [f"u{i}@example.com,{'é' * (i % 977)}" for i in range(2000)]
        for end in ("\n", "\r\n", "\r"):
            results = read(tmp_path, end.join(["email,x", *wide]))
            assert [f"{r.address},{r.variables['x']}" for r in good(results)] == wide
            assert [r.line for r in good(results)] == list(range(2, 2002))


class TestColumns:
    @pytest.mark.parametrize(
        ("column", "variable"),
        [
            ("name", "name"),
            ("Name", "Name"),
            ("  first_name ", "first_name"),
            ("First name", "First_name"),
            ("Price (€)", "Price"),
            ("E-Mail", "E_Mail"),
            ("2nd", "_2nd"),
            ("имя", "имя"),
            ("cafe\u0301", "caf\u00e9"),
            ("a.b[0]", "a_b_0"),
            ("m²", "m"),
        ],
    )
    def test_variables(self, tmp_path: Path, column: str, variable: str) -> None:
        assert table_of(tmp_path, f"address,{column}\n").variables == ("address", variable)

    @pytest.mark.parametrize(
        ("header", "index"),
        [
            ("name,email", 1),
            ("name,EMAIL", 1),
            ("name,E-Mail", 1),
            ("name,e_mail", 1),
            ("name,Email Address", 1),
            ("Mail,address", 0),
            ("address,email", 1),
            ("name,address", 1),
        ],
    )
    def test_the_address_column_is_found(self, tmp_path: Path, header: str, index: int) -> None:
        assert table_of(tmp_path, header + "\n").address_index == index

    @pytest.mark.parametrize("wanted", ["Work mail", "Work_mail", "work MAIL", " Work mail "])
    def test_the_address_column_can_be_named(self, tmp_path: Path, wanted: str) -> None:
        assert table_of(tmp_path, "email,Work mail\n", wanted).address_index == 1

    @pytest.mark.parametrize(
        ("content", "wanted", "message"),
        [
            (
                "name,city\n",
                None,
                (
                    "no column of people.csv looks like the address; its columns are: name, city; "
                    "name the right one with --email-column"
                ),
            ),
            (
                "name,city\n",
                "to",
                (
                    "people.csv has no column 'to'; its columns are: name, city; "
                    "name the right one with --email-column"
                ),
            ),
            (
                "email,E-Mail\n",
                None,
                (
                    "more than one column of people.csv may hold the address (email, E-Mail); "
                    "name the right one with --email-column"
                ),
            ),
            (
                "ann@example.com,Ann\n",
                None,
                (
                    "the first line of people.csv holds an address instead of column names "
                    "(ann@example.com, Ann); put a line such as email,name above it"
                ),
            ),
            (
                "email,a b,a-b\n",
                None,
                (
                    "two columns of people.csv make the variable 'a_b': 'a b' and 'a-b'; "
                    "rename or remove one of them"
                ),
            ),
            (
                "email,,x\n",
                None,
                (
                    "column 2 of people.csv has no name; "
                    "give it one that has a letter or digit, or remove the column"
                ),
            ),
            (
                "email,%\n",
                None,
                (
                    "column 2 of people.csv has the name '%'; "
                    "give it one that has a letter or digit, or remove the column"
                ),
            ),
            ("", None, "people.csv is empty; its first line must name the columns"),
            ("\ufeff\n\n", None, "people.csv is empty; its first line must name the columns"),
            (
                '"email,name\n',
                None,
                (
                    "the header on line 1 of people.csv cannot be read: a quote is opened and not "
                    "closed; mend the quotes"
                ),
            ),
        ],
    )
    def test_refused_headers(
        self, tmp_path: Path, content: str, wanted: str | None, message: str
    ) -> None:
        with pytest.raises(MisuseError) as caught:
            table_of(tmp_path, content, wanted)
        assert str(caught.value) == message

    def test_errors_stay_on_one_line_and_hide_controls(self, tmp_path: Path) -> None:
        with pytest.raises(MisuseError) as caught:
            table_of(tmp_path, '"a\nb",\x1b[2J\n')
        assert str(caught.value).isprintable()


class TestRejected:
    def test_bad_rows_stop_nothing(self, tmp_path: Path) -> None:
        content = (
            "email,name\n"
            ",nobody\n"
            "   ,nobody\n"
            "ann.example.com,no at\n"
            "few@example.com\n"
            "many@example.com,a,b\n"
            "bell@example.com,\x07\n"
            "del@example.com,a\x7fb\n"
            "nul@example.com,\0\n"
            "good@example.com,Good\n"
        )
        results = read(tmp_path, content)
        assert [r.address for r in good(results)] == ["good@example.com"]
        assert [(r.line, r.reason) for r in bad(results)] == [
            (2, "no address"),
            (3, "no address"),
            (4, "no @ in 'ann.example.com'"),
            (5, "1 column where the header has 2"),
            (6, "3 columns where the header has 2"),
            (7, "control character U+0007 in name"),
            (8, "control character U+007F in name"),
            (9, "control character U+0000 in name"),
        ]
        assert bad(results)[4].row == ("many@example.com", "a", "b")

    @pytest.mark.parametrize("cell", ['"ann@example.com\nBcc: x"', '"ann@example.com\r\n.x"'])
    def test_an_address_with_a_line_end_inside_is_rejected(self, tmp_path: Path, cell: str) -> None:
        ((line, reason),) = reasons(tmp_path, f"email\n{cell}\n")
        assert line == 2
        assert "\n" not in reason

    def test_text_after_a_closing_quote(self, tmp_path: Path) -> None:
        content = 'email,name\na@example.com,"A" B\nb@example.com,B\n'
        assert reasons(tmp_path, content) == [(2, "text after a closing quote")]

    def test_a_quote_inside_an_unquoted_value_is_data(self, tmp_path: Path) -> None:
        (ann,) = good(read(tmp_path, 'email,size\nann@example.com,5" pipe\n'))
        assert ann.variables["size"] == '5" pipe'

    def test_an_unclosed_quote_costs_its_own_line_only(self, tmp_path: Path) -> None:
        rows = [f"u{i}@example.com,x" for i in range(50)]
        content = "\n".join(["email,name", *rows[:10], 'bad@example.com,"oops', *rows[10:], ""])
        results = read(tmp_path, content)
        assert [(r.line, r.reason) for r in bad(results)] == [
            (12, "a quote is opened and not closed")
        ]
        assert [f"{r.address},x" for r in good(results)] == rows
        assert [r.line for r in good(results)] == [*range(2, 12), *range(13, 53)]

    def test_an_unclosed_quote_does_not_swallow_rows_up_to_the_next_quote(
        self, tmp_path: Path
    ) -> None:
        content = (
            "email,name\n"
            'bad@example.com,"oops\n'
            "ann@example.com,Ann\n"
            'bob@example.com,"Bob"\n'
            "eve@example.com,Eve\n"
        )
        results = read(tmp_path, content)
        assert [r.line for r in bad(results)] == [2]
        assert [r.line for r in good(results)] == [3, 4, 5]

    def test_an_unclosed_quote_in_a_long_file(self, tmp_path: Path) -> None:
        rows = [f"u{i}@example.com,{'x' * 50}" for i in range(20_000)]
        content = "\n".join(["email,name", 'bad@example.com,"oops', *rows, ""])
        results = read(tmp_path, content)
        assert len(good(results)) == 20_000
        assert [r.line for r in bad(results)] == [2]

    def test_a_value_over_the_field_limit(self, tmp_path: Path) -> None:
        limit = csv.field_size_limit()
        fits = f"fits@example.com,{'x' * limit}"
        over = f"over@example.com,{'x' * (limit + 1)}"
        results = read(tmp_path, f"email,x\n{fits}\n{over}\nann@example.com,Ann\n")
        assert [r.line for r in good(results)] == [2, 4]
        assert [(r.line, r.reason) for r in bad(results)] == [
            (3, f"a value is longer than {limit} characters")
        ]

    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
    @pytest.mark.parametrize("extra", [1, 65_000, 3_000_000])
    def test_an_overlong_line(self, tmp_path: Path, end: str, extra: int) -> None:
        monster = "m@example.com," + "x" * (LINE_LIMIT_BYTES + extra)
        content = end.join(["email,x", "a@example.com,1", monster, "b@example.com,2", ""])
        results = read(tmp_path, content)
        assert [r.line for r in good(results)] == [2, 4]
        ((line, reason),) = [(r.line, r.reason) for r in bad(results)]
        assert line == 3
        assert "longer than" in reason

    def test_many_values_over_the_record_limit(self, tmp_path: Path) -> None:
        big = '"' + "x\n" * 50_000 + '"'
        content = f"email,x\na@example.com,{','.join([big] * 12)}\nb@example.com,2\n"
        results = read(tmp_path, content)
        assert bad(results)[0].line == 2
        assert good(results)[-1].address == "b@example.com"


class TestBytes:
    def test_invalid_utf8_names_line_and_byte(self, tmp_path: Path) -> None:
        with pytest.raises(MisuseError) as caught:
            read(tmp_path, b"email,name\nann@example.com,Ann\nbob@example.com,J\xf6rg\n")
        assert str(caught.value) == (
            "people.csv is not UTF-8: line 3, byte 48 is 0xf6; "
            "save the file as UTF-8 (in a spreadsheet: “CSV UTF-8”)"
        )

    @pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
    @pytest.mark.parametrize("before", [0, 10, 70_000, 3_000_000])
    def test_the_byte_is_right_anywhere(self, tmp_path: Path, mark: bytes, before: int) -> None:
        head = mark + b"email,x\n"
        rows = b"a@example.com,\xc3\xa4\r\n" * (before // 18)
        with pytest.raises(MisuseError) as caught:
            read(tmp_path, head + rows + b"b\xff\n")
        line = before // 18 + 2
        assert f"line {line}, byte {len(head + rows) + 1} is 0xff;" in str(caught.value)

    def test_the_byte_is_right_after_an_overlong_line(self, tmp_path: Path) -> None:
        head = b"email,x\n" + b"x" * 2_000_000 + b"\r\n"
        with pytest.raises(MisuseError) as caught:
            read(tmp_path, head + b"a@example.com,1\nb\xff\n")
        assert f"line 4, byte {len(head) + 17} is 0xff;" in str(caught.value)

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
    def test_utf16(self, tmp_path: Path, encoding: str) -> None:
        with pytest.raises(MisuseError, match="is UTF-16, not UTF-8; save the file as UTF-8"):
            table_of(tmp_path, "email,name\nann@example.com,Ann\n".encode(encoding))

    def test_a_spreadsheet(self, tmp_path: Path) -> None:
        with pytest.raises(MisuseError, match="is a spreadsheet, not a CSV file; export"):
            table_of(tmp_path, b"PK\x03\x04\x14\x00\x06\x00")

    def test_memory_does_not_grow_with_a_file_of_one_line(self) -> None:
        class Endless(io.BytesIO):
            left = 100 << 20

            def read(self, size: int | None = -1, /) -> bytes:
                assert size
                self.left -= size
                return b"x" * size if self.left > 0 else b""

        tracemalloc.start()
        try:
            (line,) = read_lines(Endless(), "endless")
            assert isinstance(line, Overlong)
            assert tracemalloc.get_traced_memory()[1] < 8 << 20
        finally:
            tracemalloc.stop()


class TestSource:
    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(MisuseError, match=r"there is no file .*; check the path"):
            open_table(tmp_path / "none.csv")

    def test_a_directory(self, tmp_path: Path) -> None:
        with pytest.raises(MisuseError, match="is a directory; name the CSV file in it"):
            open_table(tmp_path)

    def test_a_file_that_may_not_be_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Root may read everything, so the refusal is played.
        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", refuse)
        with pytest.raises(MisuseError, match="may not be read; check its permissions"):
            open_table(tmp_path / "people.csv")

    def test_other_refusals_of_the_system(self) -> None:
        with pytest.raises(MisuseError, match="cannot be opened"):
            open_table(Path("a\0b"))
        with pytest.raises(MisuseError, match="cannot be opened"):
            open_table(Path("x" * 5000))

    def test_a_file_is_used_where_it_is(self, tmp_path: Path) -> None:
        path = tmp_path / "people.csv"
        path.write_text("email\n")
        with open_source(str(path), io.BytesIO()) as source:
            assert source == path
        assert path.exists()

    def test_standard_input_is_copied_and_the_copy_goes(self) -> None:
        with open_source("-", io.BytesIO(b"email\na@example.com\n")) as source:
            table = open_table(source, name="standard input")
            for _ in range(2):
                assert len(list(read_recipients(table))) == 1
        assert not source.exists()

    def test_the_copy_goes_when_the_block_raises(self) -> None:
        with pytest.raises(ZeroDivisionError), spool(io.BytesIO(b"x")) as copy:
            raise ZeroDivisionError
        assert not copy.exists()

    def test_a_named_pipe_is_copied(self, tmp_path: Path) -> None:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        writer = threading.Thread(target=pipe.write_bytes, args=(b"email\na@example.com\n",))
        writer.start()
        with open_source(str(pipe), io.BytesIO()) as source:
            assert source != pipe
            assert source.read_bytes() == b"email\na@example.com\n"
        writer.join()
        assert not source.exists()

    @pytest.mark.parametrize("name", ["none.csv", "."])
    def test_what_cannot_be_opened_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(MisuseError), open_source(name, io.BytesIO()):
            pass


class TestSurvey:
    def test_counts_first_and_sample(self, tmp_path: Path) -> None:
        rows = "".join(f"u{i}@example.com\n" if i % 10 else "nobody\n" for i in range(1, 2001))
        left_out: list[Rejected] = []
        table = table_of(tmp_path, "email\nfirst@example.com\n" + rows)
        result = survey(table, rng=Random(7), rejected=left_out.append)
        assert (result.good, result.rejected) == (1801, 200)
        assert len(left_out) == 200
        assert result.first is not None
        assert result.first.address == "first@example.com"
        assert len({r.key for r in result.sample}) == 100

    def test_the_sample_is_fair(self, tmp_path: Path) -> None:
        table = table_of(tmp_path, "email\n" + "".join(f"u{i}@example.com\n" for i in range(20)))
        rng = Random(11)
        seen = [0] * 20
        for _ in range(2000):
            for one in survey(table, rng=rng, sample_size=5).sample:
                seen[one.line - 2] += 1
        # 500 expected each; the standard deviation is about 19.
        assert all(400 < count < 600 for count in seen)

    def test_a_small_file_is_its_own_sample(self, tmp_path: Path) -> None:
        table = table_of(tmp_path, "email\na@example.com\nb@example.com\n")
        result = survey(table, rng=Random(1))
        assert [r.key for r in result.sample] == ["a@example.com", "b@example.com"]

    def test_only_bad_rows(self, tmp_path: Path) -> None:
        result = survey(table_of(tmp_path, "email\nnobody\n"), rng=Random(1))
        assert (result.good, result.rejected, result.first, result.sample) == (0, 1, None, ())

    def test_no_rows(self, tmp_path: Path) -> None:
        with pytest.raises(MisuseError) as caught:
            survey(table_of(tmp_path, "email,name\n\n"), rng=Random(1))
        assert str(caught.value) == (
            "people.csv has no rows below its header; add one line for each recipient"
        )

    def test_progress(self, tmp_path: Path) -> None:
        table = table_of(tmp_path, "email\n" + "a@example.com\n" * 25_000)
        seen: list[int] = []
        survey(table, rng=Random(1), progress=seen.append)
        assert seen == [10_000, 20_000]

    @pytest.mark.parametrize("rows", [1, 99, 100, 101, 250])
    def test_batches(self, tmp_path: Path, rows: int) -> None:
        content = "email\n" + "".join(f"u{i}@example.com\nnobody\n" for i in range(rows))
        left_out: list[Rejected] = []
        table = table_of(tmp_path, content)
        batches = list(read_batches(table, size=100, rejected=left_out.append))
        assert [len(batch) for batch in batches] == [
            min(100, rows - begin) for begin in range(0, rows, 100)
        ]
        assert [r.address for batch in batches for r in batch] == [
            f"u{i}@example.com" for i in range(rows)
        ]
        assert len(left_out) == rows

    def test_memory_does_not_grow_with_the_file(self, tmp_path: Path) -> None:
        def peak(rows: int) -> int:
            text = "email,name\n" + "".join(f"u{i}@example.com,Name\n" for i in range(rows))
            table = table_of(tmp_path, text)
            tracemalloc.start()
            try:
                survey(table, rng=Random(1))
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()

        peak(100)
        assert peak(40_000) < 1.5 * peak(8_000)


class TestRejectedFile:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("people.csv", "people.rejected.csv"),
            ("lists/people.txt", "lists/people.rejected.csv"),
            ("people", "people.rejected.csv"),
            ("-", "stdin.rejected.csv"),
        ],
    )
    def test_path(self, name: str, expected: str) -> None:
        assert rejected_path(name) == Path(expected)

    def test_columns_line_and_reason(self, tmp_path: Path) -> None:
        content = 'email;name\nx;"a\nb"\none\nm@example.com;1;2\n"open@example.com;x\n'
        table = table_of(tmp_path, content)
        path = tmp_path / "people.rejected.csv"
        with RejectedFile(path, table) as rejected:
            survey(table, rng=Random(1), rejected=rejected.write)
            assert not path.exists()
        assert rejected.count == 4
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.reader(stream, delimiter=";"))
        assert rows == [
            ["email", "name", "line", "reason"],
            ["x", "a\nb", "2", "no @ in 'x'"],
            ["one", "", "4", "1 column where the header has 2"],
            ["m@example.com", "1", "5", "3 columns where the header has 2", "2"],
            ['"open@example.com;x', "", "6", "a quote is opened and not closed"],
        ]
        assert sorted(p.name for p in tmp_path.iterdir()) == ["people.csv", "people.rejected.csv"]

    def test_it_can_be_read_and_rejected_again(self, tmp_path: Path) -> None:
        table = table_of(tmp_path, "email,line,reason\nx,1,why\n")
        path = tmp_path / "people.rejected.csv"
        with RejectedFile(path, table) as rejected:
            survey(table, rng=Random(1), rejected=rejected.write)
        again = open_table(path)
        assert again.columns == ("email", "line", "reason", "rejected_line", "rejected_reason")

    def test_nothing_rejected_no_file(self, tmp_path: Path) -> None:
        table = table_of(tmp_path, "email\n")
        with RejectedFile(tmp_path / "people.rejected.csv", table):
            pass
        assert [p.name for p in tmp_path.iterdir()] == ["people.csv"]

    def test_a_second_run_takes_the_place_of_the_first(self, tmp_path: Path) -> None:
        table = table_of(tmp_path, "email\n")
        path = tmp_path / "people.rejected.csv"
        for line in (2, 3):
            with RejectedFile(path, table) as rejected:
                rejected.write(Rejected(line=line, reason="why", row=("x",)))
        assert path.read_text() == "email,line,reason\nx,3,why\n"

    def test_a_block_that_raises_leaves_the_older_file(self, tmp_path: Path) -> None:
        table = table_of(tmp_path, "email\n")
        path = tmp_path / "people.rejected.csv"
        path.write_text("older")
        rejected = RejectedFile(path, table)
        rejected.write(Rejected(line=2, reason="why", row=("x",)))
        with pytest.raises(ZeroDivisionError), rejected:
            raise ZeroDivisionError
        assert path.read_text() == "older"
        assert len(list(tmp_path.iterdir())) == 2

    def test_a_directory_that_is_not_there(self, tmp_path: Path) -> None:
        table = table_of(tmp_path, "email\n")
        path = tmp_path / "none" / "people.rejected.csv"
        with (
            pytest.raises(MisuseError, match="cannot write the rejected rows to"),
            RejectedFile(path, table) as rejected,
        ):
            rejected.write(Rejected(line=2, reason="why", row=("x",)))

    def test_a_directory_in_its_place(self, tmp_path: Path) -> None:
        table = table_of(tmp_path, "email\n")
        path = tmp_path / "people.rejected.csv"
        path.mkdir()
        with (
            pytest.raises(MisuseError, match="cannot write the rejected rows to"),
            RejectedFile(path, table) as rejected,
        ):
            rejected.write(Rejected(line=2, reason="why", row=("x",)))
        assert len(list(tmp_path.iterdir())) == 2


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
