"""A campaign on its way: checked, enqueued, then worked off by a runner."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from random import Random

import msgspec

from mailrace.clock import Clock
from mailrace.errors import MisuseError
from mailrace.mail.campaign import KIND, Campaign, StoredCampaign
from mailrace.mail.classification import judge
from mailrace.mail.intake import Recipient, Rejected, Rows, Survey, read_batches, survey
from mailrace.mail.message import Mailer, Message
from mailrace.mail.mime import CompiledMessage
from mailrace.mail.templates import UnfitValueError
from mailrace.queue import (
    Batch,
    ClaimedJob,
    Gate,
    Lane,
    NewJob,
    Result,
    Step,
    Store,
    queue_of,
)

_BATCH = 1000
_REJECTED_SHOWN = 5
_PAYLOAD = msgspec.json.Decoder(tuple[str, dict[str, str]])


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A campaign that can be sent to the people it was checked with.

    Attributes:
        rejected: The first few rows that cannot be sent to.
    """

    campaign: Campaign
    people: Rows
    survey: Survey
    rejected: tuple[Rejected, ...]


@dataclass(slots=True)
class Intake:
    """What became of the rows: their sum is the rows read.

    Attributes:
        added: New recipients.
        known: Addresses that the campaign had already: twice in the file, or from an earlier run.
        rejected: Rows that cannot be sent to.
    """

    added: int = 0
    known: int = 0
    rejected: int = 0


def check(
    campaign: Campaign,
    people: Rows,
    *,
    rng: Random,
    progress: Callable[[int], None] | None = None,
) -> Checked:
    """Reads the people once and writes the message for the first and a random hundred of them.

    Raises:
        MisuseError: The people cannot be read, a template has a name that is none of their columns
            or cannot be filled in with them, or no row has values that fit. Nothing was enqueued.
    """
    compiled = campaign.compile("check")
    compiled.check_columns(people.variables)
    rejected: list[Rejected] = []

    def keep_first(row: Rejected) -> None:
        if len(rejected) < _REJECTED_SHOWN:
            rejected.append(row)

    found = survey(people, rng=rng, rejected=keep_first, progress=progress)
    if found.first is None:
        raise MisuseError(
            f"{people.name} has no row that can be sent to",
            hint=f"line {rejected[0].line}: {rejected[0].reason}",
        )
    _try_out(compiled, people.name, (found.first, *found.sample))
    return Checked(campaign=campaign, people=people, survey=found, rejected=tuple(rejected))


def _try_out(compiled: CompiledMessage, name: str, rows: Sequence[Recipient]) -> None:
    """Writes the message for some rows; a value that does not fit stops only if none fits."""
    unfit: list[MisuseError] = []
    for one in rows:
        try:
            write(compiled, one, "check", date_s=0)
        except MisuseError as error:
            problem = f"line {one.line} of {name}: {error.problem}"
            unfit.append(MisuseError(problem, hint=error.hint))
            if not isinstance(error, UnfitValueError) or len(unfit) == len(rows):
                raise unfit[0] from error


def write(compiled: CompiledMessage, to: Recipient, local: str, *, date_s: int) -> Message:
    """The message for one recipient, as it would be sent."""
    return compiled.compose(to.address, to.variables, message_id_local=local, date_s=date_s)


async def open_campaign(store: Store, campaign: Campaign, token: str) -> tuple[Batch, str]:
    """The campaign's batch, and the token of its Message-IDs: an older one where it goes on.

    Raises:
        ConflictError: There is a campaign of that name, and it is another one.
    """
    spec = msgspec.json.encode(StoredCampaign(token=token, campaign=campaign))
    batch = await store.open_batch(campaign.name, KIND, spec)
    stored = msgspec.json.decode(batch.spec, type=StoredCampaign)
    stored.check_same(campaign)
    return batch, stored.token


async def enqueue(
    store: Store,
    batch: Batch,
    people: Rows,
    *,
    rejected: Callable[[Rejected], None],
    progress: Callable[[Intake], None] | None = None,
    limit: int | None = None,
) -> Intake:
    """Puts everybody into the store whom the campaign has not got yet.

    Args:
        limit: Only the first so many rows that can be sent to.
    """
    intake = Intake()

    def reject(row: Rejected) -> None:
        intake.rejected += 1
        rejected(row)

    batches = read_batches(people, size=_BATCH, rejected=reject)
    everybody = chain.from_iterable(batches)
    chosen = everybody if limit is None else islice(everybody, limit)
    while part := list(islice(chosen, _BATCH)):
        answers = await store.enqueue([_job(batch, one) for one in part])
        added = sum(answer.new for answer in answers)
        intake.added += added
        intake.known += len(part) - added
        if progress is not None:
            progress(intake)
    return intake


def _job(batch: Batch, to: Recipient) -> NewJob:
    return NewJob(
        kind=batch.kind,
        payload=msgspec.Raw(msgspec.json.encode((to.address, to.variables))),
        queue=queue_of(batch.id),
        batch_id=batch.id,
        idempotency=f"{batch.id}:{to.key}",
        lane=Lane.CAMPAIGN,
    )


class CampaignHandler:
    """Writes a recipient's message and hands it to the mailer, once an attempt."""

    def __init__(
        self, compiled: CompiledMessage, *, token: str, mailer: Mailer, clock: Clock
    ) -> None:
        self._compiled = compiled
        self._token = token
        self._mailer = mailer
        self._clock = clock

    async def __call__(self, job: ClaimedJob, gate: Gate) -> Result:
        try:
            (answer,) = await self._mailer.send(self._compose(job), gate)
        except MisuseError as error:
            return Result(Step.FAIL, "cannot be written", str(error))
        return judge(answer)

    def _compose(self, job: ClaimedJob) -> Message:
        address, variables = _PAYLOAD.decode(job.payload)
        return self._compiled.compose(
            address,
            variables,
            message_id_local=f"{self._token}.{job.id}",
            date_s=int(self._clock.unix_s()),
        )


def address_of(job: ClaimedJob) -> str:
    """To whom a campaign's job goes."""
    return _PAYLOAD.decode(job.payload)[0]
