"""The one tree of errors, sorted by what the caller can do about them."""


class MailraceError(Exception):
    """Base of every error that Mailrace raises on purpose.

    Attributes:
        problem: What is wrong, one line, with the offending value in it.
        hint: What to do about it, one line; empty when `problem` says it all.
    """

    def __init__(self, problem: str, *, hint: str = "") -> None:
        super().__init__(problem, hint)
        self.problem = problem
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.problem}; {self.hint}" if self.hint else self.problem


class MisuseError(MailraceError):
    """The call, file or setting is wrong: change it. Trying again does not help."""


class UnavailableError(MailraceError):
    """Something outside is down or busy and nothing was done: try again later."""


class RejectedError(MailraceError):
    """The far side refused for good, for example a wrong password: do not try again as it is."""


class ConflictError(MailraceError):
    """Somebody else holds or changed the thing: look at it again before deciding."""
