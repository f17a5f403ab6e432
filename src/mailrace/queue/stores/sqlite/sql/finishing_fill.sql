-- lock: none (a temporary table); guard: of two records of one lease the first counts
INSERT INTO temp.finishing
SELECT
    json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
    json_extract(value, '$[3]'), json_extract(value, '$[4]'), json_extract(value, '$[5]'),
    json_extract(value, '$[6]'), json_extract(value, '$[7]')
FROM json_each(:records)
WHERE true
ON CONFLICT DO NOTHING
