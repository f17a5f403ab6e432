"""A process of another machine dies: its journal is out of reach, the store's notes decide."""

from contextlib import ExitStack

from mailrace.jobs import JobState
from tests.system.kills.books import KINDS, Books, until

LEASE_S = 1.5


def test_what_a_dead_process_of_another_machine_had_is_told_apart_by_the_stores_notes(
    postgres_books: Books, stack: ExitStack
) -> None:
    """Begun ones of which nothing is known are uncertain; those only held run."""
    books = postgres_books
    books.enqueue([*KINDS] * 6)
    elsewhere = str(books.folder / "elsewhere")
    victim = books.process(stack, journals=elsewhere, holds=["running"], lease_s=LEASE_S, told=True)
    busy = 0
    while busy < 4:
        busy += not books.of("quick").issuperset(victim.until("begin")["jobs"])
    victim.jobs_until("claim", len(books.begun()) + 4)
    victim.jobs_until("finished", len(books.of("quick") & set(books.begun())))
    ended = {effect.job for effect in books.effects() if effect.what == "end"}
    held = set(books.begun()) - ended
    victim.kill()
    other = books.process(stack, lease_s=LEASE_S)
    other.until("rescued")
    books.until_final()
    other.drain()
    uncertain = books.states().get(JobState.UNCERTAIN, set())
    assert uncertain == held & books.of("once")
    assert uncertain
    begun = books.begun()
    assert {job for job in books.kinds if begun[job] > 1} == held - books.of("once")
    books.check()


def test_the_journal_of_another_machine_is_left_to_it(
    postgres_books: Books, stack: ExitStack
) -> None:
    """Its next process there finds nothing to do any more, and clears it away."""
    books = postgres_books
    books.enqueue(["once"] * 8)
    elsewhere = str(books.folder / "elsewhere")
    victim = books.process(stack, journals=elsewhere, holds=["finish"], lease_s=LEASE_S, told=True)
    victim.until("finish")
    victim.jobs_until("attempted", 8)
    victim.kill()
    other = books.process(stack, lease_s=LEASE_S)
    books.until_final()
    other.drain()
    # They were done, and only the journal of the dead knows: held is better than twice.
    assert books.states() == {JobState.UNCERTAIN: set(books.kinds)}
    (journal,) = (books.folder / "elsewhere").glob("*.journal")
    back = books.process(stack, journals=elsewhere)
    back.until("working")
    until(lambda: not journal.exists())
    back.drain()
    assert books.states() == {JobState.UNCERTAIN: set(books.kinds)}
    assert max(books.begun().values()) == 1
    books.check()
    books.journals = books.folder / "elsewhere"
    books.check()
