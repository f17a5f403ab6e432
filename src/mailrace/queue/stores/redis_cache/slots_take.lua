-- Pops slots of a limit, or gives the caller the turn to fetch some from the store.
-- KEYS[1]: the limit. ARGV: for how long, the caller's token, how long its turn lasts, the present
-- (empty: the server's clock). Answers {'slots', first in, interval, grace, how many}, {'fetch'},
-- or {'elsewhere'} while somebody else fetches.
local key, span_s, token, turn_s = KEYS[1], tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local time = redis.call('TIME')
local now_s = tonumber(ARGV[4]) or (tonumber(time[1]) + tonumber(time[2]) / 1000000)
local exact = function(number) return string.format('%.17g', number) end

-- What another run of the server has kept may be older than what it answered: a replica that was
-- promoted, or a restart from its file, would give slots out again. The same for a clock that was
-- set back.
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
if not run then return redis.error_reply('ERR the server has no run_id') end
local kept = redis.call(
    'HMGET', key, 'run', 'seen_s', 'first_s', 'interval_s', 'grace_s', 'slots', 'asked_s'
)
if kept[1] ~= run or tonumber(kept[2]) > now_s then
    redis.call('DEL', key)
    kept = {}
end

local slots = tonumber(kept[6] or 0)
if slots > 0 then
    local first_s, interval_s, grace_s = tonumber(kept[3]), tonumber(kept[4]), tonumber(kept[5])
    local late_s = now_s - (first_s + grace_s)
    if late_s > 0 then
        local lost = math.ceil(late_s / interval_s)
        first_s, slots = first_s + lost * interval_s, slots - lost
    end
    local mine = math.min(slots, math.max(1, math.floor(span_s / interval_s)))
    if mine > 0 then
        redis.call(
            'HSET', key, 'seen_s', exact(now_s),
            'first_s', exact(first_s + mine * interval_s), 'slots', exact(slots - mine)
        )
        return {'slots', exact(first_s - now_s), exact(interval_s), exact(grace_s), mine}
    end
end

if kept[7] and now_s - tonumber(kept[7]) < turn_s then return {'elsewhere'} end
redis.call(
    'HSET', key, 'run', run, 'seen_s', exact(now_s), 'slots', 0,
    'token', token, 'asked_s', exact(now_s)
)
redis.call('PEXPIRE', key, math.ceil(turn_s * 1000))
return {'fetch'}
