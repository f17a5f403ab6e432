"""The command `mailrace` as a process of its own."""

import csv
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

SENDER = "Ann <ann@example.com>"


def arguments(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "mailrace", *map(str, words)]


def environment() -> dict[str, str]:
    """The environment without settings that would steer the command."""
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "COVERAGE_PROCESS_START")
    return {name: os.environ[name] for name in kept if name in os.environ}


def start(*words: str | Path, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        arguments(*words),
        cwd=cwd,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(
    *words: str | Path, cwd: Path, given: str | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments(*words),
        cwd=cwd,
        env=environment(),
        input=given,
        stdin=subprocess.DEVNULL if given is None else None,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def send_words(via: str, *more: str | Path, rate: str = "none") -> list[str | Path]:
    """`send` of `people.csv` with `hello.html`."""
    return [
        "send", "people.csv", "--from", SENDER, "--subject", "Hello {{ name }}",
        "--html", "hello.html", "--via", via, "--rate", rate, *more,
    ]  # fmt: skip


def write_campaign(folder: Path, addresses: Iterable[str]) -> None:
    with (folder / "people.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["email", "name"])
        writer.writerows([address, f"Zoë {number}"] for number, address in enumerate(addresses))
    (folder / "hello.html").write_text("<p>Hello {{ name }}</p>", encoding="utf-8")


def loads(output: str) -> Any:
    return json.loads(output)


def states(store: Path) -> dict[str, str]:
    """Every recipient's state, from the store itself."""
    connection = sqlite3.connect(store)
    try:
        return dict(connection.execute("SELECT json_extract(payload, '$[0]'), state FROM jobs"))
    finally:
        connection.close()
