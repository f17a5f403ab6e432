"""`mailrace migrate`, `backup` and `restore`, on either store."""

from pathlib import Path

import pytest

from mailrace.cli import main
from tests.support.postgres import Databases
from tests.system.workbench import Command, enqueue, states_of

pytestmark = pytest.mark.usefixtures("folder")


def test_a_store_is_made_once(store: str, command: Command) -> None:
    pending = command.json("migrate", "--check", "--store", store)["pending"]
    assert pending[0] == "0001_jobs"
    assert command.json("migrate", "--check", "--store", store)["pending"] == pending
    assert command.json("migrate", "--store", store)["applied"] == pending
    assert command.json("migrate", "--store", store)["applied"] == []
    assert command.text("migrate", "--check", "--store", store).endswith(": up to date\n")


def test_a_check_says_it_by_its_exit_code_and_touches_nothing(folder: Path) -> None:
    assert main(["migrate", "--check"]) == 1
    assert list(folder.iterdir()) == []
    assert main(["migrate"]) == 0
    assert main(["migrate", "--check"]) == 0


def test_a_backup_is_restored_where_there_is_nothing(
    store: str, folder: Path, command: Command, postgres_databases: Databases
) -> None:
    enqueue(store, "greet", ["ada", "bo"])
    made = command.json("backup", "copy", "--store", store)
    assert made["bytes"] == (folder / "copy").stat().st_size > 0
    enqueue(store, "greet", ["later"])
    said = command.refused("backup", "copy", "--store", store)
    assert said.startswith("copy is there already")
    said = command.refused("restore", "copy", "--store", store)
    assert "already" in said
    assert states_of(store) == {"available": 3}
    with postgres_databases.fresh_database() as empty:
        other = "sqlite:///other.db" if store.startswith("sqlite") else empty
        assert command.text("restore", "copy", "--store", other).endswith("restored from copy\n")
        assert states_of(other) == {"available": 2}


def test_what_is_no_backup(store: str, folder: Path, command: Command) -> None:
    (folder / "letter.txt").write_text("Dear Ada", encoding="utf-8")
    assert "letter.txt" in command.refused("restore", "letter.txt", "--store", store)
    assert "nothing.db" in command.refused("restore", "nothing.db", "--store", store)
    assert command.refused("backup", "copy", "--store", store).startswith("there is no store")
    assert sorted(path.name for path in folder.iterdir()) == ["letter.txt"]


def test_an_address_is_shown_without_its_password(
    postgres_dsn: str, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    user, at, place = postgres_dsn.partition("@")
    secret = f"{user}:sesame{at}{place}"
    said = command.json("migrate", "--store", secret)["store"]
    assert (said.startswith("postgresql://…@"), "sesame" in said) == (True, False)
    assert main(["jobs", "list", "--store", f"{user}:sesame@127.0.0.1:1/nowhere"]) == 3
    said = capsys.readouterr().err
    assert "sesame" not in said
    assert said.count("\n") == 1
