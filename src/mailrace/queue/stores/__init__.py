"""Stores: adapters of the port `mailrace.queue.store`."""
