"""A real PgBouncer of one's own in front of a PostgreSQL, pooling by transaction."""

import shutil
import signal
import socket
from pathlib import Path
from typing import Self
from urllib.parse import quote

from tests.support.daemon import Daemon, unused_port, why_not
from tests.support.postgres import Databases, PostgresServer

# Any database goes to the server behind it. Nothing is reset between clients in this mode, as on
# the pools that people run: what a session sets is seen by the next client.
_CONFIGURATION = """
[databases]
* = host=127.0.0.1 port={server_port}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users
pool_mode = transaction
max_client_conn = 1000
default_pool_size = {pool_size}
ignore_startup_parameters = extra_float_digits,options
"""


def available() -> str | None:
    """Why there can be no PgBouncer here; None if there can."""
    if _program() is None:
        return "not installed: pgbouncer"
    return why_not()


class PgBouncer(Databases):
    """A pooler before a server of one's own, for as long as the context lasts.

    Args:
        server: The server behind it, which runs.
        pool_size: Connections to each database, which all its clients share.
    """

    def __init__(self, server: PostgresServer, *, pool_size: int = 20) -> None:
        program = _program()
        assert program is not None, available()
        self._program = program
        self._daemon = Daemon("pgbouncer")
        self.folder = self._daemon.folder
        self.log = self._daemon.log
        self.port = unused_port()
        (self.folder / "users").write_text('"postgres" ""\n')
        (self.folder / "configuration").write_text(
            _CONFIGURATION.format(
                server_port=server.port, port=self.port, folder=self.folder, pool_size=pool_size
            )
        )

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def dsn(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{quote(database, safe='')}"

    def start(self) -> None:
        if self._daemon.pid is None:
            self._daemon.start(
                self._program, self.folder / "configuration", is_ready=self._is_listening
            )

    def stop(self) -> None:
        """Ends it at once, its clients' connections with it; the server behind it stays."""
        self._daemon.end(signal.SIGTERM)

    def close(self) -> None:
        try:
            self.stop()
        finally:
            self._daemon.close()

    def _is_listening(self, _: int) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def _program() -> Path | None:
    # Debian keeps it where only root's path leads.
    found = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin")
    return Path(found) if found is not None else None
