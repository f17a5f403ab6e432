"""`mailrace worker --metrics`: one process serves what the whole store holds."""

import re
import time
import urllib.request
from pathlib import Path

import pytest

from mailrace.cli.metrics import Address, address
from mailrace.errors import MisuseError
from tests.support.command import run
from tests.system.workbench import PATIENCE_S, WorkerProcess, enqueue, until_lines, write_tasks

STORE = "sqlite:///mailrace.db"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_tasks(tmp_path)
    return tmp_path


def until_served(url: str, line: str) -> str:
    """Waits until a line is among those that are served; returns all."""
    until_s = time.monotonic() + PATIENCE_S
    while True:
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
            text: str = answer.read().decode()
        if line in text.splitlines():
            return text
        assert time.monotonic() < until_s, text
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("9464", "127.0.0.1", 9464),
        ("0.0.0.0:0", "0.0.0.0", 0),
        ("[::1]:65535", "::1", 65535),
        ("metrics.example:80", "metrics.example", 80),
    ],
)
def test_an_address_is_a_port_or_a_host_and_a_port(text: str, host: str, port: int) -> None:
    assert address(text) == Address(host, port)


@pytest.mark.parametrize("text", ["", ":", "host", "host:", ":80", "65536", "-1", "::1:80", "1٣"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(MisuseError, match=re.escape(f"--metrics is {text!r}")):
        address(text)


def test_a_worker_serves_metrics_until_it_has_drained(folder: Path) -> None:
    enqueue(STORE, "hold", ["a"])
    with WorkerProcess(folder, "--metrics", "0") as worker:
        url = worker.until("serving metrics")["url"]
        assert url.startswith("http://127.0.0.1:")
        until_lines(folder / "held.txt", 1)
        text = until_served(url, 'mailrace_queue_jobs{queue="default",state="running"} 1.0')
        assert "mailrace_store_up 1.0" in text
        worker.terminate()
        worker.until("draining")
        until_served(url, "mailrace_store_up 1.0")
        (folder / "go").touch()
        assert worker.until_end() == 0
    with pytest.raises(OSError, match="refused"):
        until_served(url, "")


def test_of_several_processes_the_supervisor_serves(folder: Path) -> None:
    enqueue(STORE, "note", ["a"])
    with WorkerProcess(folder, "--processes", "2", "--metrics", "0") as supervisor:
        url = supervisor.until("serving metrics")["url"]
        text = until_served(url, 'mailrace_queue_supervisors{state="working"} 1.0')
        text = until_served(url, 'mailrace_queue_jobs_completed_total{queue="default"} 1.0')
        (host,) = set(re.findall(r'mailrace_queue_workers\{host="(.*)"\}', text))
        until_served(url, f'mailrace_queue_processes{{host="{host}",state="working"}} 2.0')
        supervisor.terminate()
        assert supervisor.until_end() == 0
    assert [line["event"] for line in supervisor.log].count("serving metrics") == 1


def test_a_port_that_is_taken_ends_it_before_it_works(folder: Path) -> None:
    enqueue(STORE, "note", ["a"])
    with WorkerProcess(folder, "--metrics", "0", "--queue", "none") as other:
        port = other.until("serving metrics")["url"].rpartition(":")[2].partition("/")[0]
        done = run("worker", "tasks:handlers", "--metrics", port, cwd=folder)
        assert done.returncode == 2
        assert f"metrics cannot be served at http://127.0.0.1:{port}/metrics" in done.stderr
        assert "Traceback" not in done.stderr
        assert "working" not in done.stderr
        other.terminate()
        assert other.until_end() == 0
    assert not (folder / "noted.txt").exists()
