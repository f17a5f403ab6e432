"""An optional cache for the whole cluster beside a store, in Redis or Valkey: limits, wake-ups."""

from mailrace.queue.stores.redis_cache.store import CachedStore

__all__ = ["CachedStore"]
