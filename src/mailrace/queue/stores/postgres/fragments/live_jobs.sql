-- needs: nothing; gives: jobs as j, with the columns that only those that ended have
mailrace.jobs AS j
-- fragment: last_attempt
CROSS JOIN (SELECT NULL::timestamptz AS ended_at) AS never
