-- lock: write; index: answers(command_id, by), commands.id; guard: the command is still kept
INSERT INTO answers (command_id, by, done, text, at_ms)
SELECT id, :by, :done, :text, :now_ms FROM commands WHERE id = :command_id
ON CONFLICT (command_id, by) DO UPDATE SET
    done = excluded.done, text = excluded.text, at_ms = excluded.at_ms
