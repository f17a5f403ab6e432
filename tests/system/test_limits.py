"""The rate limit as the far side sees it: in every window, over all workers and processes."""

from bisect import bisect_left
from pathlib import Path

import pytest

from tests.support.command import loads, send_words, start, write_campaign
from tests.support.recording import RecordingServer

# Departures are exact (tests/pool); arrivals are noted by a thread that a busy machine holds up.
# So many seconds of delay between two of them are not taken for a burst.
JITTER_S = 0.1


def most_in_a_window(times: list[float], window_s: float) -> int:
    """The most arrivals in any half-open window of that length."""
    times = sorted(times)
    return max(bisect_left(times, at + window_s) - number for number, at in enumerate(times))


def words(via: str, rate: str, workers: int) -> list[str | Path]:
    return send_words(via, "--workers", str(workers), "--json", rate=rate)


def test_a_thousand_at_a_hundred_a_second_with_one_and_with_five_workers(tmp_path: Path) -> None:
    runs = {}
    with RecordingServer() as one, RecordingServer() as five:
        for workers, server in ((1, one), (5, five)):
            folder = tmp_path / str(workers)
            folder.mkdir()
            write_campaign(folder, [f"person{n}@example.net" for n in range(1000)])
            runs[workers] = (server, start(*words(server.url, "100/s", workers), cwd=folder))
        for workers, (server, process) in runs.items():
            output, errors = process.communicate(timeout=60)
            assert process.returncode == 0, errors
            assert 10 <= loads(output)["seconds"] <= 11
            assert server.recorded.total == 1000
            assert most_in_a_window(server.recorded.times, 1.0 - JITTER_S) <= 100
            assert server.connections_most <= workers


def test_two_processes_share_the_limit_and_the_work(tmp_path: Path) -> None:
    write_campaign(tmp_path, [f"person{n}@example.net" for n in range(400)])
    with RecordingServer() as server:
        both = [start(*words(server.url, "100/s", 5), cwd=tmp_path) for _ in range(2)]
        outputs = [process.communicate(timeout=60) for process in both]
        assert [process.returncode for process in both] == [0, 0], outputs
        times = server.recorded.times
        assert most_in_a_window(times, 1.0 - JITTER_S) <= 100
        assert all(len(ids) == 1 for ids in server.recorded.messages.values())
        assert len(server.recorded.messages) == 400
    shares = [loads(output)["ended_here"] for output, _ in outputs]
    assert sum(shares) == 400
    assert min(shares) > 50, shares


@pytest.mark.parametrize("workers", [1, 5, 20])
def test_as_many_conversations_as_workers(tmp_path: Path, workers: int) -> None:
    write_campaign(tmp_path, [f"person{n}@example.net" for n in range(10 * workers)])
    with RecordingServer(delay_s=0.02) as server:
        process = start(*words(server.url, "none", workers), cwd=tmp_path)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert server.connections_most == workers
