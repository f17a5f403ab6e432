"""What dead processes held: run again soon, and not for ever where it is what kills them."""

import signal
import time
from contextlib import ExitStack

from mailrace.jobs import JobState
from mailrace.queue.jobs import DEATHS_MAX
from tests.system.kills.books import KINDS, Books
from tests.system.kills.processes import Process


def test_a_job_that_kills_its_process_again_and_again_is_a_dead_letter_and_no_other_is(
    books: Books,
) -> None:
    """What was held beside it is not begun, and so is not blamed."""
    books.enqueue(["quick", "chunk"])
    (deadly,) = books.enqueue(["deadly"])
    books.enqueue([*KINDS] * 3)
    for _ in range(DEATHS_MAX):
        with Process(**books.plan, concurrency=1) as process:
            assert process.exit_code() == -signal.SIGKILL
    with Process(**books.plan) as process:
        process.until("working")
        books.until_final()
        process.drain()
    assert books.states()[JobState.FAILED] == {deadly}
    assert books.begun() == dict.fromkeys(books.kinds, 1) | {deadly: DEATHS_MAX}
    row = books.rows()[deadly]
    assert (row.category, row.deaths, row.attempt) == ("system", DEATHS_MAX, 0)
    assert {row.deaths for job, row in books.rows().items() if job != deadly} == {0}
    books.check()


def test_jobs_in_hand_beside_a_deadly_one_do_not_die_with_it_three_times(books: Books) -> None:
    """Who was in hand when a process died goes alone from then on."""
    books.enqueue(["slow"] * 3)
    (deadly,) = books.enqueue(["deadly"])
    for _ in range(DEATHS_MAX):
        with Process(**books.plan, concurrency=4, pause_s=1.0) as process:
            assert process.exit_code() == -signal.SIGKILL
    with Process(**books.plan) as process:
        process.until("working")
        books.until_final()
        process.drain()
    assert books.states()[JobState.FAILED] == {deadly}
    assert {row.deaths for job, row in books.rows().items() if job != deadly} == {1}


def test_what_a_dead_process_held_runs_again_within_one_lease(
    books: Books, stack: ExitStack
) -> None:
    """Where another one works already, with jobs of its own."""
    lease_s = 8.0
    books.enqueue(["slow"] * 40)
    victim = books.process(stack, holds=["running"], lease_s=lease_s, told=True)
    victim.jobs_until("begin", 4)
    other = books.process(stack, lease_s=lease_s)
    other.until("finished")
    held = {effect.job for effect in books.effects() if effect.pid == victim.pid}
    killed_ns = time.monotonic_ns()
    victim.kill()
    books.until_final()
    other.drain()
    again = [
        effect.at_ns for effect in books.effects() if effect.job in held and effect.pid == other.pid
    ]
    assert len(again) == 2 * len(held)
    assert max(again) - killed_ns < lease_s * 1e9
    books.check()
