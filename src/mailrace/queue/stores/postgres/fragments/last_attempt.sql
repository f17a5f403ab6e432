-- needs: jobs, or rows that were, as j; gives: what was wrong the last time, as a, or nulls
LEFT JOIN LATERAL (
    SELECT l.category, l.reason, l.detail FROM mailrace.attempts AS l
    WHERE l.job_id = j.id ORDER BY l.lease DESC LIMIT 1
) AS a ON true
