-- Sets when a turn is checked again: in `ms`, or never (-1). A queued turn keeps its place, unless never. Replies
-- whether it was known.
-- KEYS as take_due.lua.
local member, ms = unpack(ARGV)
if ms == '-1' then
  local project = string.match(member, '^[^|]*')
  local known = redis.call('ZREM', KEYS[1], member)
  if redis.call('ZREM', KEYS[2], member) == 1 then
    local count = tonumber(redis.call('HGET', KEYS[3], 'count:' .. project) or 0) or 0 -- damage counts as 0
    if count > 1 then
      redis.call('HSET', KEYS[3], 'count:' .. project, string.format('%d', count - 1))
    else
      redis.call('HDEL', KEYS[3], 'count:' .. project, 'last:' .. project)
    end
    known = 1
  end
  return known
end
if redis.call('ZSCORE', KEYS[2], member) then return 1 end
local time = redis.call('TIME')
return redis.call('ZADD', KEYS[1], string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000) + ms), member)
