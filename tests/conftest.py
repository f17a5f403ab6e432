"""What every test can ask for."""

from collections.abc import Iterator

import pytest

pytest_plugins = ("tests.support.postgres_fixtures",)


@pytest.fixture(autouse=True, scope="session")
def _state_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Journals for stores on PostgreSQL lie with the other files of the tests, not at home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield
