"""The store on SQLite."""

from mailrace.queue.stores.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
