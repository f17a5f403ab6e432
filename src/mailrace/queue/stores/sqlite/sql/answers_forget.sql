-- lock: write; index: commands.id
DELETE FROM answers WHERE command_id NOT IN (SELECT id FROM commands)
