"""`mailrace send` as a person runs it: a process of its own, a file of people, a durable store."""

import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import msgspec

_HTML = """<!DOCTYPE html>
<html><head><style>p { color: #333333; } .go { color: #2f6a91; }</style></head><body>
<h1>Hello {{ name }}</h1>
<p>The wheel in {{ city }} has turned {{ turns }} times for you since you are on {{ plan }}.</p>
<p>It turns as long as there is water in the race, and not longer. What goes in at the top comes
out at the bottom, in order, and nothing is lost on the way.</p>
<p><a class="go" href="https://example.com/people/{{ turns }}">See the wheel</a></p>
</body></html>
"""
_CITIES = ("Kraków", "Lyon", "Porto", "Oslo", "Ghent")
_POLL_S = 0.02
_LIMIT_S = 1800


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How one run of the command went.

    Attributes:
        wall_s: From the start of the process to its end.
        peak_rss_bytes: The most memory it held (VmHWM, to within 20 ms of its end).
        store_bytes: Size of the store afterwards, with what lies beside it.
    """

    wall_s: float
    peak_rss_bytes: int
    store_bytes: int


def send(port: int, recipients: int, *, workers: int = 20) -> Outcome:
    """Sends to so many people on the sink at `port`; ends the program if one is not sent to."""
    with tempfile.TemporaryDirectory(prefix="mailrace-bench-") as name:
        folder = Path(name)
        _write_people(folder / "people.csv", recipients)
        (folder / "welcome.html").write_text(_HTML, encoding="utf-8")
        command = _command(folder, port, workers)
        begin = time.perf_counter()
        with subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            peak = _Peak(process.pid)
            try:
                output, errors = process.communicate(timeout=_LIMIT_S)
            except BaseException:
                process.kill()
                raise
            finally:
                peak.stop()
        wall_s = time.perf_counter() - begin
        _check(process.returncode, output, errors, recipients)
        store_bytes = sum(p.stat().st_size for p in folder.rglob("mail.db*") if p.is_file())
        return Outcome(wall_s=wall_s, peak_rss_bytes=peak.bytes, store_bytes=store_bytes)


def _command(folder: Path, port: int, workers: int) -> list[str]:
    options = {
        "from": "Ann <ann@example.com>",
        "subject": "Hello {{ name }}",
        "html": "welcome.html",
        "via": f"smtp://127.0.0.1:{port}",
        "store": f"sqlite:///{folder}/mail.db",
        "rate": "none",
        "workers": str(workers),
    }
    pairs = [part for name, value in options.items() for part in (f"--{name}", value)]
    return [sys.executable, "-m", "mailrace", "send", "people.csv", *pairs, "--json"]


def _write_people(path: Path, recipients: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write("email,name,city,plan,turns\n")
        file.writelines(
            f"u{number}@example.net,Zoë {number},{_CITIES[number % 5]},River,{number}\n"
            for number in range(recipients)
        )


def _check(code: int, output: bytes, errors: bytes, recipients: int) -> None:
    summary = msgspec.json.decode(output) if output.strip() else {}
    if code != 0 or summary.get("sent") != recipients:
        text = (errors or output).decode(errors="replace").strip()
        sys.exit(f"mailrace send ended with {code} instead of sending to {recipients}:\n{text}")


class _Peak:
    """Reads the high-water mark of another process until told to stop.

    `getrusage` would do it once, but its mark is inherited by a child from before its exec.
    """

    def __init__(self, pid: int) -> None:
        self.bytes = 0
        self._status = Path(f"/proc/{pid}/status")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(_POLL_S):
            try:
                lines = self._status.read_text().splitlines()
            except (FileNotFoundError, ProcessLookupError):
                return
            for line in lines:
                if line.startswith("VmHWM:"):
                    self.bytes = int(line.split()[1]) * 1024
