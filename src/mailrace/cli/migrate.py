"""`mailrace migrate`: makes the store, or brings it up to date."""

import asyncio

from mailrace.cli.exits import DONE, FAILURES
from mailrace.cli.opening import settings_for
from mailrace.cli.output import as_json, tell
from mailrace.wiring import describe_store, pending_migrations
from mailrace.wiring import migrate as migrate_store


def migrate(*, check: bool = False, store: str | None = None, json: bool = False) -> int:
    """Makes the store, or brings it up to date; says what was done.

    Args:
        check: Do nothing; exit with 1 if there is something to do.
        store: Which one, by default sqlite:///mailrace.db.
        json: Print one JSON document instead of text.
    """
    url = settings_for(store=store).store
    names = pending_migrations(url) if check else asyncio.run(migrate_store(url))
    place = describe_store(url)
    if json:
        tell(as_json({"store": place, "pending" if check else "applied": names}))
    else:
        head = f"{place}: {'to be applied' if check else 'applied'}"
        tell(f"{head} {', '.join(names)}" if names else f"{place}: up to date")
    return FAILURES if check and names else DONE
