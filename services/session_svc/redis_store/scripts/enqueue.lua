-- Puts a turn at the end of its project's queue. A project's turns have consecutive places of their own from where
-- the queue is, so that projects take turns.
-- KEYS as take_due.lua.
-- Reply ok
-- Reply full
local member, project, most = unpack(ARGV)
if redis.call('ZSCORE', KEYS[2], member) then return {'ok'} end
local counts = redis.call('HMGET', KEYS[3], 'count:' .. project, 'last:' .. project, 'now')
if tonumber(counts[1] or 0) >= tonumber(most) then return {'full'} end
local place = math.max(tonumber(counts[2] or 0), tonumber(counts[3] or 0)) + 1
redis.call('ZADD', KEYS[2], place, member)
redis.call('ZREM', KEYS[1], member)
redis.call('HSET', KEYS[3], 'count:' .. project, (counts[1] or 0) + 1, 'last:' .. project, place)
return {'ok'}
