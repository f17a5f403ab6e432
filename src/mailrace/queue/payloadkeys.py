"""With which keys the payloads in a store are sealed, and how they come under the newest."""

from mailrace.errors import MisuseError
from mailrace.queue.drafting import Drafting
from mailrace.queue.keycounts import KeyCount, KeyCounting
from mailrace.queue.resealing import Resealed, Resealing
from mailrace.queue.sealing import Sealer
from mailrace.queue.storedpayloads import Payloads, pages, read_planned


class PayloadKeys:
    """The keys of what is stored: which there are, and how to be rid of the old ones."""

    def __init__(self, store: Payloads, drafting: Drafting) -> None:
        self._store = store
        self._sealer = drafting.sealer
        self._nonces = drafting.nonces

    async def counts(self) -> list[KeyCount]:
        """The keys in use and the given ones, the one that seals first.

        Every payload is read and opened: a key of the right name with another secret shows.
        """
        counting = KeyCounting(self._sealer)
        for planned in await self._store.planned_jobs():
            counting.add_planned(read_planned(planned))
        async for page in pages(self._store):
            for stored in page:
                counting.add(stored)
        return counting.counts()

    def check_reseal(self, *, plain: bool = False) -> None:
        """Refuses what `reseal` would refuse, without looking at any payload.

        Raises:
            As `reseal`.
        """
        self._sealer_for(plain=plain)

    async def reseal(self, *, plain: bool = False) -> Resealed:
        """Seals with the first key what is sealed with another, whatever its job's state.

        Payloads of running jobs, and what somebody else changes at the same moment, are left for
        another call. It may be interrupted at any time: each page is a transaction of its own,
        and what is done is passed over by the next call.

        Args:
            plain: Seal also what is not sealed, but for the jobs of mail campaigns.

        Raises:
            MisuseError: There are no keys; or plain payloads are to be sealed where only sealed
                ones are taken. Nothing was done.
        """
        sealer = self._sealer_for(plain=plain)
        resealing = Resealing(self._store, sealer, self._nonces, plain=plain)
        # What is made from them and committed meanwhile has a higher number, and is met later; a
        # transaction that is still open may commit a lower one, which is left for another call.
        await resealing.plans()
        await resealing.jobs()
        return resealing.result()

    def _sealer_for(self, *, plain: bool) -> Sealer:
        if self._sealer is None:
            raise MisuseError("there are no keys to seal with", hint="give keys, the newest first")
        if plain and not self._sealer.allows_plain:
            raise MisuseError(
                "only sealed payloads are taken, and plain ones are to be sealed",
                hint="switch sealed_only off for this call",
            )
        return self._sealer
