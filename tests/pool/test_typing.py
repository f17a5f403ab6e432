"""What the type checker refuses: calls of the pool that are wrong."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# The lines with a comment are errors, and no others.
WRONG = """
import functools
from mailrace.pool import JobOptions, Plugin, Pool, RetryPolicy

async def fetch(url: str, *, size: int = 0) -> bytes:
    return url.encode()

def count(text: str) -> int:
    return 0

async def main(pool: Pool) -> None:
    await pool.submit(fetch, "a", size=1)
    await pool.submit(functools.partial(count, "a"))
    await pool.submit(fetch)  # wrong
    await pool.submit(fetch, 1)  # wrong
    await pool.submit(fetch, "a", 1)  # wrong
    await pool.submit(fetch, "a", size="1")  # wrong
    await pool.submit(fetch, "a", speed=1)  # wrong
    await pool.submit(count, b"a")  # wrong
    await pool.submit("count", "a")  # wrong
    await pool.submit(fetch("a"))  # wrong
    await pool.submit(functools.partial(count, 1))  # wrong
    pool.submit_nowait(count, 1)  # wrong
    pool.submit_nowait(count, function=count)  # wrong
    pool.submit_threadsafe(count)  # wrong
    number: int = await (await pool.submit(fetch, "a"))  # wrong
    text: str = pool.submit_threadsafe(count, "a").result()  # wrong
    async for page in pool.map(fetch, [1, 2]):  # wrong
        pass
    async for length in pool.map(count, "a", "b"):  # wrong
        pass
    pool.map(fetch, 5)  # wrong
    pool.submit_many(count, [1])  # wrong
    await pool.options(priority="high").submit(count, 1)  # wrong
    pool.options("high")  # wrong
    JobOptions(priority="urgent")  # wrong
    JobOptions(kind="fiber")  # wrong
    JobOptions(timeout="5s")  # wrong
    JobOptions("high")  # wrong
    RetryPolicy(delays=(1.0, 2.0))  # wrong
    Pool(plugins=Plugin())  # wrong
    Pool("mails")  # wrong
    await pool.close(timeout="1")  # wrong
    pool.outcomes(slow="drop")  # wrong
"""


def test_wrong_calls_are_errors_and_right_ones_are_not(tmp_path: Path) -> None:
    program = tmp_path / "wrong.py"
    program.write_text(WRONG, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", tmp_path / "cache", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    found = {int(line) for line in re.findall(r"wrong\.py:(\d+): error:", done.stdout)}
    lines = enumerate(WRONG.splitlines(), 1)
    assert found == {number for number, line in lines if line.endswith("# wrong")}, done.stdout
