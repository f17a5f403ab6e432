"""The store on SQLite: one file, one writer thread a process, no server."""

from mailrace.queue.stores.sqlite.claims import Claims
from mailrace.queue.stores.sqlite.desk import Desk
from mailrace.queue.stores.sqlite.figures import Figures
from mailrace.queue.stores.sqlite.fleet import Fleet
from mailrace.queue.stores.sqlite.intake import Intake
from mailrace.queue.stores.sqlite.rules import Rules
from mailrace.queue.stores.sqlite.upkeep import Upkeep
from mailrace.queue.stores.sqlite.wakeups import Wakeups


class SqliteStore(Intake, Claims, Wakeups, Desk, Rules, Fleet, Figures, Upkeep):
    """Durable jobs in one SQLite file; several processes of one machine may share it.

    Every method is one transaction, synced to disk before it returns.
    """
