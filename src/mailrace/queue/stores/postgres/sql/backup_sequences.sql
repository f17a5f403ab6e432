-- lock: none; guard: sequences that have given out a number
SELECT s.sequencename::text, s.last_value FROM pg_sequences AS s
WHERE s.schemaname = 'mailrace' AND s.last_value IS NOT NULL
ORDER BY 1
