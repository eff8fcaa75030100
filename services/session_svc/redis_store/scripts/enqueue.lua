-- Puts a turn at the end of its project's queue. A project's turns have consecutive places of their own from where
-- the queue is, so that projects take turns.
-- KEYS as take_due.lua.
-- Reply ok
-- Reply full
local member, project, most = unpack(ARGV)
if redis.call('ZSCORE', KEYS[2], member) then return {'ok'} end
-- What is no number counts as 0: damage must not keep the turns of all projects from being queued.
local function number(text)
  return text and #text < 16 and tonumber(string.match(text, '^%d+$')) or 0
end
local shares = redis.call('HMGET', KEYS[3], 'count:' .. project, 'last:' .. project, 'now')
local count = math.min(number(shares[1]), redis.call('ZCARD', KEYS[2]))
if count >= tonumber(most) then return {'full'} end
local place = math.max(number(shares[2]), number(shares[3])) + 1
redis.call('ZADD', KEYS[2], place, member)
redis.call('ZREM', KEYS[1], member)
redis.call('HSET', KEYS[3], 'count:' .. project, count + 1, 'last:' .. project, place)
return {'ok'}
