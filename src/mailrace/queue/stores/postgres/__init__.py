"""The store on PostgreSQL."""

from mailrace.queue.stores.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
