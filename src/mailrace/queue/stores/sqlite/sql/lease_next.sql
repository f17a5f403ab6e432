-- lock: none (inside the write of claim); index: sequences.name
SELECT value + 1 FROM sequences WHERE name = 'lease'
