import csv
import tracemalloc
from pathlib import Path
from random import Random

import pytest

from mailrace.errors import MisuseError
from mailrace.mail.intake import (
    Rejected,
    RejectedFile,
    open_table,
    read_batches,
    rejected_path,
    survey,
)
from tests.support.intake import table_of


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
