"""Databases for tests: on one PostgreSQL a run, or on the one that the environment names."""

import os
from collections.abc import Iterator

import pytest

from tests.support.postgres import Databases, GivenServer, PostgresServer, available

GIVEN = "MAILRACE_TEST_POSTGRES"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The run's own server, for tests that stop, kill or restart it."""
    if os.environ.get(GIVEN):
        pytest.skip(f"{GIVEN} names a server that is not this run's to stop")
    if reason := available():
        pytest.skip(reason)
    with PostgresServer(fsync=False) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_databases(request: pytest.FixtureRequest) -> Databases:
    """The server that databases are made on: the one named by the environment, or the run's own."""
    if given := os.environ.get(GIVEN):
        return GivenServer(given)
    own: PostgresServer = request.getfixturevalue("postgres_server")
    return own


@pytest.fixture
def postgres_dsn(postgres_databases: Databases) -> Iterator[str]:
    """The address of an empty database of the test's own."""
    with postgres_databases.fresh_database() as dsn:
        yield dsn
