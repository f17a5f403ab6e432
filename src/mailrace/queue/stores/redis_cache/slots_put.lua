-- Keeps slots that were fetched from the store, once, and only where it is still the caller's turn.
-- KEYS[1]: the limit. ARGV: the caller's token, first in, interval, grace, how many, the present
-- (empty: the server's clock). Answers whether they were kept.
local key, token, first_in_s = KEYS[1], ARGV[1], tonumber(ARGV[2])
local interval_s, grace_s, slots = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local time = redis.call('TIME')
local now_s = tonumber(ARGV[6]) or (tonumber(time[1]) + tonumber(time[2]) / 1000000)
local exact = function(number) return string.format('%.17g', number) end

local kept = redis.call('HMGET', key, 'token', 'asked_s')
if kept[1] ~= token then return 0 end
local way_s = now_s - tonumber(kept[2])
if way_s < 0 then  -- the clock was set back
    redis.call('DEL', key)
    return 0
end
-- The store's present was somewhere on the way: a slot is never used before its time, and what it
-- may be late by the way is taken from its grace.
redis.call(
    'HSET', key, 'seen_s', exact(now_s), 'first_s', exact(now_s + first_in_s),
    'interval_s', exact(interval_s), 'grace_s', exact(math.max(0.001, grace_s - way_s)),
    'slots', exact(slots)
)
redis.call('HDEL', key, 'token', 'asked_s')
redis.call('PEXPIRE', key, math.ceil((first_in_s + slots * interval_s + grace_s) * 1000) + 1000)
return 1
