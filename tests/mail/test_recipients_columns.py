from pathlib import Path

import pytest

from mailrace.errors import MisuseError
from tests.support.intake import table_of


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
