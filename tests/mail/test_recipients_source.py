import io
import os
import threading
from pathlib import Path

import pytest

from mailrace.errors import MisuseError
from mailrace.mail.intake import (
    open_source,
    open_table,
    read_recipients,
    spool,
)


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
