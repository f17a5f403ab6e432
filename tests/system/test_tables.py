"""What the commands write to a terminal."""

from mailrace.cli.tables import cut, table
from mailrace.cli.words import printable


def test_columns_stand_under_their_heads() -> None:
    rows = [("mail", 1_234, True, None), ("a longer name", 5, False, "")]
    assert table(["queue", "jobs", "on", "why"], rows, right={"jobs"}).splitlines() == [
        "queue           jobs  on   why",
        "mail           1,234  yes  -",
        "a longer name      5  no   -",
    ]


def test_nothing_of_a_table_is_cut_where_nobody_looks() -> None:
    long = "x" * 5000
    assert long in table(["why"], [(long,)], right=(), ends_in_text=True)


def test_lines_are_cut_at_the_edge() -> None:
    assert cut(["12345", "123456"], 5) == ["12345", "1234…"]


def test_nothing_steers_the_terminal() -> None:
    assert (
        printable("550 no\r\n\x1b[2Jbody\x9b1m here\u202e")
        == "550 no  \ufffd[2Jbody\ufffd1m here\ufffd"
    )
    assert printable("Zoë  写") == "Zoë  写"
    assert "\x1b" not in table(["why"], [("\x1b[31mred",)], right=())
