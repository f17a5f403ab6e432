-- lock: row; index: schedule_slots_pkey; guard: fired in this transaction
UPDATE mailrace.schedule_slots SET job_id = %(job_id)s
WHERE name = %(name)s AND slot = mailrace.moment(%(slot_ms)s)
