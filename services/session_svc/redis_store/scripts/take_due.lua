-- Takes the next turn that waits for a gateway: one that may have lost its gateway, else a queued one, by projects
-- in rotation. It is checked again after `again_ms`, unless that is changed. `queued`: turns left in the queue.
-- KEYS 1 running: when to check each turn; 2 queued: turns by their place; 3 shares: counts and last places of projects
-- Reply ok: member, queued
local again_ms = unpack(ARGV)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local again = string.format('%d', now + tonumber(again_ms))
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%d', now), 'LIMIT', 0, 1)[1]
if due then
  redis.call('ZADD', KEYS[1], again, due)
  return {'ok', due, redis.call('ZCARD', KEYS[2])}
end
local first = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
if not first[1] then return {'ok', '', 0} end
local project = string.match(first[1], '^[^|]*')
redis.call('ZREM', KEYS[2], first[1])
redis.call('ZADD', KEYS[1], again, first[1])
local queued = redis.call('ZCARD', KEYS[2])
if queued == 0 then
  redis.call('DEL', KEYS[3])
else
  redis.call('HSET', KEYS[3], 'now', first[2])
  local count = tonumber(redis.call('HGET', KEYS[3], 'count:' .. project) or 0) or 0 -- damage counts as 0
  if count > 1 then
    redis.call('HSET', KEYS[3], 'count:' .. project, string.format('%d', count - 1))
  else
    redis.call('HDEL', KEYS[3], 'count:' .. project, 'last:' .. project)
  end
end
return {'ok', first[1], queued}
