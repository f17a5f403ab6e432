"""Mailrace: mail, and any other work, that must go out fast, within limits, and never be lost."""

from importlib.metadata import version

__version__ = version("mailrace")
