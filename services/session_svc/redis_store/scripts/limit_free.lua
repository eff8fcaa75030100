-- Removes a turn from those running and from the queue, and wakes the first waiter that was not woken yet.
-- KEYS as those of limit_take. With `uncount` it does not count as begun either. Replies the number of its places.
local turn, uncount = unpack(ARGV)
local had = redis.call('ZREM', KEYS[2], turn) + redis.call('ZREM', KEYS[3], turn)
redis.call('ZREM', KEYS[4], turn)
redis.call('HDEL', KEYS[5], turn)
if uncount == '1' then redis.call('ZREM', KEYS[1], turn) end
if had > 0 then
  for _, other in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
    local waiter_id = redis.call('HGET', KEYS[5], other)
    if waiter_id and waiter_id ~= '' then
      redis.call('HSET', KEYS[5], other, '')
      redis.call('PUBLISH', 'wake:' .. string.match(waiter_id, '^[^.]*'), waiter_id)
      break
    end
  end
end
return had
