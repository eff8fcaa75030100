-- Replies in how many milliseconds take_due.lua will have a turn to look at, as far as is known now; -1 where none is.
-- KEYS as take_due.lua.
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if not first[1] then return -1 end
local time = redis.call('TIME')
return math.max(tonumber(first[2]) - (time[1] * 1000 + math.floor(time[2] / 1000)), 0)
