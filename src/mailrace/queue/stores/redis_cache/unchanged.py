"""The part of a store that a cache beside it has nothing to do with."""

from mailrace.queue.store import Store


class Unchanged:
    """Bound to the store itself, so that a call by way of the cache costs nothing more.

    The checker of types tells when the port has something that is missing here.
    """

    def __init__(self, store: Store) -> None:
        self.open_batch = store.open_batch
        self.seal_batch = store.seal_batch
        self.batches = store.batches
        self.report = store.report
        self.reasons = store.reasons

        self.marks_begun = store.marks_begun
        self.register = store.register
        self.renewer = store.renewer
        self.processes = store.processes
        self.survey = store.survey
        self.claim = store.claim
        self.held = store.held
        self.begin = store.begin
        self.finish = store.finish
        self.rescue = store.rescue
        self.retire = store.retire

        self.find = store.find
        self.detail = store.detail
        self.cancel = store.cancel
        self.cancels = store.cancels
        self.revive = store.revive
        self.resend = store.resend
        self.reschedule = store.reschedule
        self.delete = store.delete
        self.ended_counts = store.ended_counts

        self.payloads, self.replace_payloads = store.payloads, store.replace_payloads
        self.planned_jobs, self.replace_planned = store.planned_jobs, store.replace_planned

        self.queue_rules = store.queue_rules
        self.set_queue = store.set_queue
        self.limits = store.limits
        self.quicken_limits = store.quicken_limits
        self.take_together = store.take_together
        self.schedules = store.schedules
        self.put_schedule = store.put_schedule
        self.remove_schedule = store.remove_schedule
        self.fire = store.fire

        self.command = store.command
        self.commands = store.commands
        self.answer = store.answer
        self.answers = store.answers
        self.take_turn = store.take_turn
        self.note = store.note
        self.notes = store.notes

        self.queue_figures = store.queue_figures
        self.throughput = store.throughput
        self.now_ms = store.now_ms

        self.complete_batches = store.complete_batches
        self.expire = store.expire
        self.retain = store.retain
        self.tidy = store.tidy
