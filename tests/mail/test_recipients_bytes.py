import io
import tracemalloc
from pathlib import Path

import pytest

from mailrace.errors import MisuseError
from mailrace.mail.intake.lines import Overlong, read_lines
from tests.support.intake import read, table_of


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
