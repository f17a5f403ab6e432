"""The command `mailrace`."""

from mailrace.cli.app import main

__all__ = ["main"]
