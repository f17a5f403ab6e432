-- lock: row; index: batches_name_key; guard: not made yet
UPDATE mailrace.batches AS b SET completion = %(job)s::json
WHERE b.name = %(name)s AND b.completion::text = %(expected)s AND b.completed_at IS NULL
