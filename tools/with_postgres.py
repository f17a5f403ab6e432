"""Runs a command with a database server other than the one that the tests bring along.

`python tools/with_postgres.py 15 -- COMMAND...` starts Debian's PostgreSQL 15, and `pgbouncer` in
place of `15` the usual server behind a PgBouncer that pools by transaction. The command finds the
server's address in MAILRACE_TEST_POSTGRES, and its exit status is this program's. Where the server
is not installed the command is not run, and that is no failure.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.support import daemon, pgbouncer, postgres


def main() -> int:
    parser = argparse.ArgumentParser(usage="%(prog)s VERSION|pgbouncer -- COMMAND...")
    parser.add_argument("server", help="a major version of PostgreSQL, or pgbouncer")
    parser.add_argument("command", nargs="+")
    asked = parser.parse_args()
    if asked.server != "pgbouncer" and not asked.server.isdecimal():
        parser.error(f"no such server: {asked.server}; name a major version, or pgbouncer")
    if reason := missing(asked.server):
        print(f"{reason}; skipped: {' '.join(asked.command)}", file=sys.stderr)
        return 0
    with started(asked.server) as dsn:
        print(f"with {asked.server} at {dsn}", file=sys.stderr, flush=True)
        environment = {**os.environ, "MAILRACE_TEST_POSTGRES": dsn}
        return subprocess.run(asked.command, env=environment, check=False).returncode


def missing(server: str) -> str | None:
    """Why there can be no such server here; None if there can."""
    if server == "pgbouncer":
        return pgbouncer.available() or postgres.available()
    if postgres.debian_programs(int(server)) is None:
        return f"not installed: postgresql-{server}"
    return daemon.why_not()


@contextmanager
def started(server: str) -> Iterator[str]:
    """The address of a new server, for as long as the context lasts."""
    with ExitStack() as running:
        if server == "pgbouncer":
            behind = running.enter_context(postgres.PostgresServer(fsync=False))
            yield running.enter_context(pgbouncer.PgBouncer(behind)).dsn()
        else:
            programs = postgres.debian_programs(int(server))
            own = postgres.PostgresServer(programs=programs, fsync=False)
            yield running.enter_context(own).dsn()


if __name__ == "__main__":
    sys.exit(main())
