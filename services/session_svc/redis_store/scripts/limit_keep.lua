-- Extends a turn's place among those running, if it still has it.
-- KEYS as those of limit_take. Replies the time.
local turn, hold_ms = unpack(ARGV)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local until_ms = string.format('%.0f', now + tonumber(hold_ms))
if redis.call('ZADD', KEYS[2], 'XX', 'CH', until_ms, turn) == 1 then redis.call('PEXPIRE', KEYS[2], hold_ms) end
return now
