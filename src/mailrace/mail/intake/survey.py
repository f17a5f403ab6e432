"""The first pass over a file: how much there is, and rows to try the template with."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from mailrace.errors import MisuseError
from mailrace.mail.intake.recipients import Recipient, Rejected, read_recipients
from mailrace.mail.intake.rows import Rows

_ROWS_A_REPORT = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What a file holds. The same address twice counts twice: the store tells them apart.

    Attributes:
        good: Rows that can be sent to.
        rejected: Rows that cannot.
        first: The first good row; `None` when there is none.
        sample: Good rows taken at random, all with the same chance, in no order.
    """

    good: int
    rejected: int
    first: Recipient | None
    sample: tuple[Recipient, ...]


def survey(
    table: Rows,
    *,
    rng: Random,
    sample_size: int = 100,
    rejected: Callable[[Rejected], None] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Survey:
    """Reads the whole file once, in memory that does not depend on it.

    Args:
        table: What to read.
        rng: Chooses the sample (reservoir sampling, Vitter's algorithm R).
        sample_size: Rows in the sample; fewer when the file has fewer.
        rejected: Called with each row that cannot be sent to.
        progress: Called with the number of rows so far, every ten thousand.

    Raises:
        MisuseError: The file has a header and no rows, is gone, or is not UTF-8.
    """
    good = bad = 0
    sample: list[Recipient] = []
    first: Recipient | None = None
    for count, result in enumerate(read_recipients(table), 1):
        if isinstance(result, Rejected):
            bad += 1
            if rejected is not None:
                rejected(result)
        else:
            first = first or result
            _offer(sample, result, good, sample_size, rng)
            good += 1
        if progress is not None and count % _ROWS_A_REPORT == 0:
            progress(count)
    if not good + bad:
        problem = f"{table.name} has no rows below its header"
        raise MisuseError(problem, hint="add one line for each recipient")
    return Survey(good=good, rejected=bad, first=first, sample=tuple(sample))


def _offer(sample: list[Recipient], one: Recipient, before: int, size: int, rng: Random) -> None:
    if before < size:
        sample.append(one)
    elif (place := int(rng.random() * (before + 1))) < size:
        sample[place] = one
