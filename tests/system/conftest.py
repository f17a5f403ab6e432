"""A folder, a store and the command for tests that run it in this process."""

from pathlib import Path

import pytest

from tests.system.workbench import Command


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the command is run, and keeps its journals."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MAILRACE_JOURNALS", str(tmp_path / "journals"))
    monkeypatch.delenv("DATABASE_URL", raising=False)
    return tmp_path


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of each kind of store in turn, which is also the one that is set."""
    url = "sqlite:///mailrace.db"
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_dsn")
    monkeypatch.setenv("MAILRACE_STORE", url)
    return url


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)
