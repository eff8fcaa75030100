-- Takes a turn off those under way, and out of the queue; the first that waits and was not called yet is called.
-- KEYS as those of limit_take; ARGV 1 turn, 2 whether it is not to count as begun either. Replies how many places it had.
local had = redis.call('ZREM', KEYS[2], ARGV[1]) + redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('ZREM', KEYS[4], ARGV[1])
redis.call('HDEL', KEYS[5], ARGV[1])
if ARGV[2] == '1' then redis.call('ZREM', KEYS[1], ARGV[1]) end
if had > 0 then
  for _, turn in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
    local call = redis.call('HGET', KEYS[5], turn)
    if call and call ~= '' then
      redis.call('HSET', KEYS[5], turn, '')
      redis.call('PUBLISH', 'wake:' .. string.match(call, '^[^.]*'), call)
      break
    end
  end
end
return had
