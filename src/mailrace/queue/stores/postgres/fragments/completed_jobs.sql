-- needs: nothing; gives: jobs_completed as c, with the columns that only the others have
mailrace.jobs_completed AS c
CROSS JOIN (
    SELECT 'completed'::mailrace.job_state AS state, NULL::timestamptz AS expires_at, '' AS category
) AS always
