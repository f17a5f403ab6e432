"""Postfix's test programs: smtp-sink, which takes mail and throws it away, and smtp-source."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

_SEARCHED = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))
_START_LIMIT_S = 5.0


def program(name: str) -> str:
    """The path of `smtp-sink` or `smtp-source`; ends the program with one line if it is missing."""
    path = shutil.which(name, path=_SEARCHED)
    if path is None:
        sys.exit(
            f"{name} is not installed and the benchmarks send to it; "
            "install Postfix (Debian, Ubuntu: apt-get install postfix), it need not run"
        )
    return path


@contextmanager
def smtp_sink() -> Iterator[int]:
    """Runs smtp-sink on a free port of the loopback interface and gives the port."""
    path = program("smtp-sink")
    port = _free_port()
    # It refuses to run as root, and answers more than 256 connections only if asked.
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    command = [path, *user, "-m", "1024", f"inet:127.0.0.1:{port}", "1024"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            _wait_until_it_listens(process, port)
            yield port
        finally:
            process.kill()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _wait_until_it_listens(process: "subprocess.Popen[bytes]", port: int) -> None:
    give_up = time.monotonic() + _START_LIMIT_S
    while time.monotonic() < give_up and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except ConnectionRefusedError:
            time.sleep(0.01)
        else:
            return
    sys.exit(f"smtp-sink does not listen on port {port}; its errors are above")
