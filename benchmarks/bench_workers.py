"""What workers and a limit give: rates that arithmetic predicts, measured with the whole command.

With 100 ms a conversation, 1, 5, 10 and 20 workers deliver 10, 50, 100 and 200 messages a second.
With `--rate 100/s`, a thousand messages take 10 to 11 seconds, with one worker and with five, and
no window of a second holds more than a hundred.
"""

import argparse
import sys
import tempfile
from bisect import bisect_left
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from stats import Figure, figure, table

from tests.support.command import loads, send_words, start, write_campaign
from tests.support.recording import RecordingServer

CONVERSATION_S = 0.1
SECONDS = 5


def delivered(workers: int) -> float:
    """Messages a second, from the first to the last that the server took."""
    messages = int(workers * SECONDS / CONVERSATION_S)
    with RecordingServer(delay_s=CONVERSATION_S) as server:
        _send(server, messages, workers, "none")
        times = server.recorded.times
    return len(times) / (times[-1] - times[0] + CONVERSATION_S)


def limited(workers: int) -> tuple[float, int]:
    """Seconds for a thousand messages at 100/s, and the most in a window of a second."""
    with RecordingServer() as server:
        seconds = _send(server, 1000, workers, "100/s")
        times = sorted(server.recorded.times)
    most = max(bisect_left(times, at + 1.0) - number for number, at in enumerate(times))
    return seconds, most


def _send(server: RecordingServer, messages: int, workers: int, rate: str) -> float:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_campaign(folder, [f"person{n}@example.net" for n in range(messages)])
        words = send_words(server.url, "--workers", str(workers), "--json", rate=rate)
        output, errors = start(*words, cwd=folder).communicate()
        if server.recorded.total != messages:
            sys.exit(f"{server.recorded.total} of {messages} arrived: {errors}")
        seconds: float = loads(output)["seconds"]
        return seconds


def measure(*, quick: bool = False) -> list[Figure]:
    """Measures all of it once; the rates are set by waiting, not by the machine."""
    figures = []
    for workers in (1, 20) if quick else (1, 5, 10, 20):
        expected = workers / CONVERSATION_S
        figures.append(
            figure(
                f"{workers} workers, 100 ms a conversation",
                [delivered(workers)],
                "messages/s",
                beside=("workers / 100 ms", [expected]),
                mark=0.95,
            )
        )
    for workers in (5,) if quick else (1, 5):
        seconds, most = limited(workers)
        figures.append(figure(f"1,000 at 100/s, {workers} workers", [seconds], "s"))
        figures.append(figure("  most in a window of 1 s", [most], "messages"))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    print(table(measure(quick=parser.parse_args().quick)))


if __name__ == "__main__":
    main()
