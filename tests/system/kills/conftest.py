"""Both kinds of store, each with the files of a test beside it."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.system.kills.books import Books


@pytest.fixture
def sqlite_books(tmp_path: Path) -> Books:
    return Books(f"sqlite:///{tmp_path}/jobs.db", tmp_path)


@pytest.fixture
def postgres_books(postgres_dsn: str, tmp_path: Path) -> Books:
    return Books(postgres_dsn, tmp_path)


@pytest.fixture(params=["sqlite", "postgres"])
def books(request: pytest.FixtureRequest) -> Books:
    found: Books = request.getfixturevalue(f"{request.param}_books")
    return found


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Where processes are entered; all that are left are killed in the end."""
    with ExitStack() as found:
        yield found
