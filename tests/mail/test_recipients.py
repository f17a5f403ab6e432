import csv
from pathlib import Path

import pytest

from mailrace.mail.intake import (
    Recipient,
)
from mailrace.mail.intake.lines import LINE_LIMIT_BYTES
from tests.support.intake import bad, good, read, reasons, table_of


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
        content = "email,note\nann@example.com,1\u20282\nbob@example.com,\x853\n"
        assert reasons(tmp_path, content) == [
            (2, "control character U+2028 in note"),
            (3, "control character U+0085 in note"),
        ]

    @pytest.mark.parametrize("mark", ["sep=;", "\ufeffSEP=;", '"sep=;"'])
    def test_a_first_line_may_name_the_delimiter(self, tmp_path: Path, mark: str) -> None:
        content = f"{mark}\r\nemail;a,b,c\r\nann@example.com;1,2,3\r\n"
        table = table_of(tmp_path, content)
        assert (table.delimiter, table.columns) == (";", ("email", "a,b,c"))
        (ann,) = good(read(tmp_path, content))
        assert (ann.line, ann.variables["a_b_c"]) == (3, "1,2,3")

    @pytest.mark.parametrize("delimiter", [",", "\t", "|"])
    def test_any_sign_may_be_named_as_the_delimiter(self, tmp_path: Path, delimiter: str) -> None:
        rows = [["email", "name"], ["ann@example.com", "Ann"]]
        lines = [f"sep={delimiter}", *map(delimiter.join, rows)]
        (ann,) = good(read(tmp_path, "\n".join(lines)))
        assert ann.variables == {"email": "ann@example.com", "name": "Ann"}

    def test_empty_cells_to_the_right_of_the_table_are_no_values(self, tmp_path: Path) -> None:
        results = read(tmp_path, "email,name\nann@example.com,Ann,, \nbob@example.com,Bob,,x\n")
        assert [one.variables["name"] for one in good(results)] == ["Ann"]
        assert [one.reason for one in bad(results)] == ["4 columns where the header has 2"]

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
