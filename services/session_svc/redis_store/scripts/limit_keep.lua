-- Lets a turn hold its place among those under way longer, where it still has it.
-- KEYS as those of limit_take; ARGV 1 turn, 2 ms. Replies the time.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local until_ms = string.format('%.0f', now + tonumber(ARGV[2]))
if redis.call('ZADD', KEYS[2], 'XX', 'CH', until_ms, ARGV[1]) == 1 then redis.call('PEXPIRE', KEYS[2], ARGV[2]) end
return now
