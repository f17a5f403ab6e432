"""From where claims look on PostgreSQL, and that a transaction held open does not slow them."""

import re
from collections.abc import Iterator

import msgspec
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrace.queue.flows import Flow, Want
from mailrace.queue.jobs import Finished, NewJob
from mailrace.queue.processes import NewProcess
from mailrace.queue.states import JobState, Step
from mailrace.queue.stores.postgres import PostgresStore
from mailrace.queue.stores.postgres.database import statement
from mailrace.queue.stores.postgres.positions import (
    CHEAP_S,
    EVERY_S,
    MARGIN_MS,
    REST,
    Positions,
    unfilled,
)
from mailrace.queue.stores.postgres.surveys import CHEAP_S as SURVEY_CHEAP_S
from mailrace.queue.stores.postgres.surveys import LastSurvey, cut

WANT = Want("default", "ann", 0, 10)
OTHER = Want("default", "bob", 0, 10)
COSTLY_S = CHEAP_S * 5


def test_a_postgres_look_from_the_start_is_made_every_time_while_it_is_cheap() -> None:
    positions = Positions()
    assert positions.full(0.0)
    positions.looked_from_start(0.0, CHEAP_S)
    positions.took([WANT], [(0, 10, 5_000)])
    assert positions.full(0.0)


def test_a_costly_postgres_look_from_the_start_is_made_once_a_second() -> None:
    positions = Positions()
    positions.looked_from_start(100.0, COSTLY_S)
    assert not positions.full(100.0 + EVERY_S * 0.99)
    assert positions.full(100.0 + EVERY_S)


def test_a_very_costly_one_rests_ten_times_its_cost() -> None:
    positions = Positions()
    positions.looked_from_start(100.0, EVERY_S)
    assert not positions.full(100.0 + EVERY_S * REST - 0.01)
    assert positions.full(100.0 + EVERY_S * REST)


def test_a_look_that_came_up_short_on_postgres_is_soon_made_from_the_start() -> None:
    positions = Positions()
    positions.looked_from_start(100.0, COSTLY_S)
    assert not positions.full_after_short(100.0 + COSTLY_S * REST * 0.99)
    assert positions.full_after_short(100.0 + COSTLY_S * REST * 1.01)


def test_a_postgres_look_begins_a_moment_before_where_the_last_one_of_its_flow_ended() -> None:
    positions = Positions()
    positions.took([WANT, OTHER], [(1, 3, 50_000)])
    assert positions.since_ms(WANT) is None
    assert positions.since_ms(OTHER) == 50_000 - MARGIN_MS


def test_positions_of_very_many_flows_are_forgotten() -> None:
    positions = Positions()
    for number in range(10_002):
        positions.took([Want("queue", str(number), 0, 1)], [(0, 1, number)])
    assert positions.since_ms(Want("queue", "0", 0, 1)) is None
    assert positions.since_ms(Want("queue", "10001", 0, 1)) is not None


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 20)), max_size=6))
def test_what_a_postgres_look_left_unfilled_is_what_was_wanted_less_what_it_found(
    rows: list[tuple[int, int]],
) -> None:
    wants = [Want("queue", str(place), 0, jobs) for place, (jobs, _) in enumerate(rows)]
    reached = [(place, min(jobs, found), 0) for place, (jobs, found) in enumerate(rows) if found]
    left = {want.tenant: want.jobs for want in unfilled(wants, reached)}
    assert left == {
        str(place): jobs - found for place, (jobs, found) in enumerate(rows) if found < jobs
    }


# Surveys


@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(-9, 9)), max_size=40, unique=True),
    st.integers(1, 12),
)
def test_every_postgres_flow_comes_into_view_by_and_by(
    names: list[tuple[str, int]], most: int
) -> None:
    flows = [Flow("queue", tenant, priority, 0) for tenant, priority in sorted(names)]
    widest = max((sum(f.tenant == flow.tenant for f in flows) for flow in flows), default=0)
    most = max(most, widest)
    seen: set[tuple[str, int]] = set()
    behind: str | None = None
    for _ in range(len(flows) + 1):
        rest = [flow for flow in flows if behind is None or flow.tenant > behind]
        shown, behind = cut(rest[: most + 1], most)
        assert len(shown) <= most
        seen |= {(flow.tenant, flow.priority) for flow in shown}
    assert seen == set(names)


def surveyed(cost_s: float) -> LastSurvey:
    """Two surveys that took so long each, the last one at 1.0."""
    last = LastSurvey()
    for now_s in (0.5, 1.0):
        last.made(("asked",), [Flow("queue", "", 0, 5)], now_s=now_s, cost_s=cost_s)
    return last


def test_a_cheap_postgres_survey_is_made_anew_each_time() -> None:
    assert surveyed(SURVEY_CHEAP_S).again(("asked",), 1.0) is None


def test_a_postgres_survey_that_was_costly_once_is_made_anew() -> None:
    last = surveyed(0.001)
    last.made(("asked",), [], now_s=1.0, cost_s=0.1)
    assert last.again(("asked",), 1.0) is None


def test_a_postgres_survey_that_was_hardly_costly_is_shown_again_for_hardly_any_time() -> None:
    last = surveyed(SURVEY_CHEAP_S + 0.001)
    assert last.again(("asked",), 1.0) == [Flow("queue", "", 0, 5)]
    assert last.again(("asked",), 1.011) is None


def test_a_costly_postgres_survey_is_shown_again_older_for_ten_times_what_was_too_much() -> None:
    last = surveyed(0.1)
    assert last.again(("asked",), 1.5) == [Flow("queue", "", 0, 505)]
    assert last.again(("asked",), 1.94) == [Flow("queue", "", 0, 945)]
    assert last.again(("asked",), 1.96) is None
    assert last.again(("something else",), 1.5) is None


# Against a real one


@pytest.fixture
def held(postgres_dsn: str) -> Iterator[psycopg.Connection]:
    """A transaction that somebody opened, looked around in, and left open."""
    with psycopg.connect(postgres_dsn) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("SELECT 1")
        yield connection


def pages_touched(dsn: str, since_ms: int | None) -> int:
    """By one look for ten jobs; nothing is claimed."""
    values = {
        "queues": ["default"], "tenants": [""], "priorities": [0], "jobs": [10], "once": [],
        "since_ms": [since_ms], "process_id": 0, "now": None,
    }  # fmt: skip
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            b"EXPLAIN (ANALYZE, BUFFERS) " + statement("claim"), values
        ).fetchall()
        connection.rollback()
    found = re.search(r"Buffers: shared hit=(\d+)", "\n".join(line for (line,) in rows))
    assert found is not None
    return int(found[1])


async def test_a_transaction_held_open_does_not_make_postgres_claims_walk_over_the_past(
    postgres_dsn: str, held: psycopg.Connection
) -> None:
    store = await PostgresStore.open(postgres_dsn)
    held.execute("SELECT count(*) FROM mailrace.jobs")  # its snapshot is from now
    process_id = await store.register(NewProcess(journal="journal"), 300.0)
    jobs = [NewJob(kind="kind", payload=msgspec.Raw(b"{}"))] * 1000
    last_ms = 0
    for _ in range(3):
        for _ in range(10):
            await store.enqueue(jobs)
        while claimed := await store.claim(process_id, [Want("default", "", 0, 5000)]):
            records = [
                Finished(job.id, job.lease, Step.COMPLETE, JobState.COMPLETED) for job in claimed
            ]
            assert await store.finish(records) == 0
            last_ms = claimed[-1].created_ms
    await store.enqueue(jobs[:20])

    from_start = pages_touched(postgres_dsn, None)
    from_position = pages_touched(postgres_dsn, last_ms)
    assert from_start > 400  # pages: it walked over all of them
    assert from_position < from_start / 4
    await store.close()


class CostlyLooks:
    """A clock by which every statement takes so long."""

    def __init__(self, cost_s: float) -> None:
        self._cost_s = cost_s
        self.now_s = 0.0

    def monotonic_s(self) -> float:
        self.now_s += self._cost_s
        return self.now_s


@pytest.mark.parametrize(
    ("others", "within_s"), [(200, EVERY_S + 0.5), (1, CHEAP_S * 1.5 * REST + 0.3)]
)
async def test_a_job_that_was_released_is_found_though_postgres_looks_are_costly(
    postgres_dsn: str, others: int, within_s: float
) -> None:
    """Where there are many others within a second or so, where there are none sooner."""
    store = await PostgresStore.open(postgres_dsn)
    clock = CostlyLooks(CHEAP_S * 1.5)
    vars(store)["clock"] = clock
    process_id = await store.register(NewProcess(journal="journal"), 300.0)
    old = NewJob(kind="kind", payload=msgspec.Raw(b'"old"'), run_at_ms=1)
    young = NewJob(kind="kind", payload=msgspec.Raw(b'"young"'))
    await store.enqueue([old, *[young] * others])
    want = [Want("default", "", 0, 1)]
    (first,) = await store.claim(process_id, want)
    await store.claim(process_id, want)
    await store.claim(process_id, want)
    await store.finish([Finished(first.id, first.lease, Step.RELEASE, JobState.AVAILABLE)])
    began_s = clock.now_s
    claims = 0
    found: list[bytes] = []
    while b'"old"' not in found and claims < 100:
        claims += 1
        found += [bytes(job.payload) for job in await store.claim(process_id, want)]
    assert found[-1] == b'"old"'
    assert claims > 1 or others == 1  # not at once: it lies behind where the last look ended
    assert clock.now_s - began_s <= within_s
    await store.close()
