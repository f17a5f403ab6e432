"""`mailrace keys`: with which keys stored payloads are sealed, and how to be rid of old ones."""

from mailrace.cli.exits import DONE, FAILURES
from mailrace.cli.opening import on_store, settings_for
from mailrace.cli.output import as_json, tell
from mailrace.cli.tables import table
from mailrace.cli.words import printable
from mailrace.errors import MisuseError
from mailrace.jobs import KeyCount, KeyUse, Queue, Resealed
from mailrace.queue.words import counted


def list_keys(*, store: str | None = None, json: bool = False) -> int:
    """Lists the keys that stored payloads are sealed with, and what MAILRACE_KEYS cannot open.

    It reads all payloads there are, a page at a time.

    Args:
        store: Where the jobs are kept, by default sqlite:///mailrace.db.
        json: Print one JSON document instead of text.
    """
    found = on_store(store, _counts)
    if json:
        tell(as_json(found))
    else:
        tell(_table(found) if found else "no payloads yet")
    return DONE


def reseal(
    *, plain: bool = False, yes: bool = False, store: str | None = None, json: bool = False
) -> int:
    """Seals stored payloads with the first of MAILRACE_KEYS, those of ended jobs too.

    Payloads of running jobs are left for another call. It can be stopped at any time, and the same
    command goes on.

    Args:
        plain: Seal also what is not sealed, but for the jobs of mail campaigns.
        yes: Do it to more than one.
        store: Where the jobs are kept, by default sqlite:///mailrace.db.
        json: Print one JSON document instead of text.
    """

    async def change(queue: Queue) -> Resealed:
        if settings_for(store=store).keys is None:
            raise MisuseError(
                "there are no keys to seal with", hint="set MAILRACE_KEYS, the newest first"
            )
        queue.keys.check_reseal(plain=plain)
        if not yes:
            _check_few(await queue.keys.counts(), plain=plain)
        return await queue.keys.reseal(plain=plain)

    done = on_store(store, change)
    tell(as_json(done) if json else "\n".join(_sentences(done)))
    return FAILURES if done.left or done.unopened else DONE


async def _counts(queue: Queue) -> list[KeyCount]:
    return await queue.keys.counts()


def _check_few(found: list[KeyCount], *, plain: bool) -> None:
    meant = sum(
        max(0, one.waiting + one.ended + one.planned - one.unopened)
        for one in found
        if one.use is not KeyUse.SEALS and (plain or one.use is not KeyUse.PLAIN)
    )
    if meant > 1:
        raise MisuseError(
            f"up to {counted(meant, 'payload')} would be sealed anew, nothing was done yet",
            hint="add --yes to do it",
        )


def _table(found: list[KeyCount]) -> str:
    numbers = ["waiting", "running", "ended", "planned", "cannot open"]
    return table(
        ["key", "use", *numbers],
        [
            (
                one.key or "",
                str(one.use),
                one.waiting,
                one.running,
                one.ended,
                one.planned,
                one.unopened,
            )
            for one in found
        ],
        right=set(numbers),
    )


def _sentences(done: Resealed) -> list[str]:
    said = [f"{counted(done.resealed, 'payload')} sealed anew, with {done.key}"]
    if done.left:
        said.append(f"{done.left:,} left for now, as their jobs run or were changed: run it again")
    if done.unopened:
        said.append(f"{done.unopened:,} cannot be opened, and stayed as they were:")
        said += [f"  {printable(one.where)}: {one.problem}" for one in done.examples]
        if done.unopened > len(done.examples):
            said.append("  …")
    if done.campaign:
        said.append(f"{done.campaign:,} of mail campaigns are not sealed, and stay so")
    if done.plain > done.campaign:
        said.append(f"{done.plain - done.campaign:,} not sealed, and left so: --plain seals them")
    return said
