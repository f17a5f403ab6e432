-- Forgets the slots of a limit whose pace has changed, once for all who say so.
-- KEYS[1]: the limit; KEYS[2]: its pace as last told. ARGV: the pace, how long it is remembered.
if redis.call('GET', KEYS[2]) == ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[1], 'EX', ARGV[2])
return redis.call('DEL', KEYS[1])
