"""`mailrace demo`: a thousand people, a real SMTP connection, and nothing that does not agree."""

import re
from email import message_from_bytes, policy
from pathlib import Path

from tests.support.command import run


def test_the_demo_twice_in_the_same_folder(tmp_path: Path) -> None:
    for _ in range(2):
        done = run("demo", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        figures = dict(re.findall(r"^  (.*\w) +([\d,]+)$", done.stdout, re.MULTILINE))
        assert figures == {
            "accepted by the server, as we saw it": "1,000",
            "messages that the server got": "1,000",
            "missing": "0",
            "got twice": "0",
        }
    folder = tmp_path / "mailrace-demo"
    received = [
        message_from_bytes(path.read_bytes(), policy=policy.default)
        for path in (folder / "received").glob("*.eml")
    ]
    assert len({str(message["To"]) for message in received}) == 1000
    kinds = {tuple(part.get_content_type() for part in message.walk()) for message in received}
    assert len(kinds) == 1
    assert {"text/plain", "text/html", "image/png"} <= set(*kinds)
    assert (folder / "people.rejected.csv").exists()
    for line in done.stdout.splitlines():
        if line.startswith("Where it stands:"):
            status = run(*line.split()[-4:][1:], cwd=tmp_path)
            assert "1,000  completed" in status.stdout


def test_a_folder_that_is_not_the_demos_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    done = run("demo", "mine", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "mailrace: mine is there already; give the demo another folder\n"
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run("demo", "file/demo", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("mailrace: file/demo cannot be made: ")
    assert len(done.stderr.splitlines()) == 1
