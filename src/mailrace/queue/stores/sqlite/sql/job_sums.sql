-- lock: none (inside the write of enqueue); index: jobs.id
SELECT queue, coalesce(batch_id, 0), state, count(*) FROM jobs WHERE id >= :first_id GROUP BY 1, 2, 3
