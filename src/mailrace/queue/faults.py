"""What an error of a handler says: of which kind it is, and what may be done about it."""

from mailrace.errors import MisuseError, RejectedError, UnavailableError
from mailrace.pool import WorkerDiedError
from mailrace.pool.retry import asked_delay_s
from mailrace.queue.kinds import Kind


def category_of(error: BaseException) -> str:
    """What kind of error it is: network, data, provider or system."""
    if isinstance(error, TimeoutError | ConnectionError | UnavailableError):
        return "network"
    if isinstance(error, MisuseError | ValueError | TypeError | LookupError):
        return "data"
    if isinstance(error, RejectedError) or asked_delay_s(error) is not None:
        return "provider"
    if isinstance(error, OSError):
        return "network"
    return "system"


def tells_nothing(kind: Kind, error: BaseException) -> bool:
    """Whether an attempt that ended so may have done its work: it was cut off."""
    if isinstance(error, TimeoutError):
        return kind.timeout_s is not None
    return isinstance(error, WorkerDiedError) or not isinstance(error, Exception)


def is_out_of_reach(kind: Kind, error: BaseException) -> bool:
    """Whether the far side could not be reached: most such faults are gone the next moment."""
    if isinstance(error, TimeoutError):
        return kind.timeout_s is None  # or it may have been our own patience
    return isinstance(error, ConnectionError | UnavailableError) and asked_delay_s(error) is None


def text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - any class of anybody's
        return "it has no text"
