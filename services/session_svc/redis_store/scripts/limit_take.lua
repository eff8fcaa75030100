-- Counts a turn in one limit, or replies why not; a refused turn leaves no trace. A repeat with the same turn id
-- counts it once and extends its place.
-- KEYS 1 begun, when: the turns of the last minute; 2 held, until when: the running turns; 3 queue, since when;
--   4 queue, until when; 5 queue, the waiter's id, empty once it was woken.
-- `a_minute` and `at_once` bound the turns, 0 meaning no bound. A turn holds its place for `hold_ms`, and waits in the
-- queue of `places` for `stand_ms` (0: not at all) unless it asks again. `counted`: it was counted before.
-- Reply granted: now_ms, remaining, reset_ms
-- Reply wait: now_ms, remaining, reset_ms, check_in_ms
-- Reply rate: now_ms, retry_ms, reset_ms
-- Reply refused: now_ms, retry_ms
-- Reply queue_full: now_ms, retry_ms
local begun, held, since, till, calls = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local turn, waiter_id, a_minute, at_once, hold_ms, stand_ms, places, counted = unpack(ARGV)
a_minute, at_once, hold_ms, stand_ms = tonumber(a_minute), tonumber(at_once), tonumber(hold_ms), tonumber(stand_ms)
places, counted = tonumber(places), counted == '1'
local MINUTE, SOON = 60000, 1000

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function digits(number) return string.format('%.0f', number) end

local function leave(who)
  redis.call('ZREM', since, who)
  redis.call('ZREM', till, who)
  redis.call('HDEL', calls, who)
end

local function reset()
  local newest = redis.call('ZRANGE', begun, -1, -1, 'WITHSCORES')
  return newest[2] and tonumber(newest[2]) + MINUTE - now or 0
end

if at_once > 0 then
  redis.call('ZREMRANGEBYSCORE', held, '-inf', digits(now))
  for _, gone in ipairs(redis.call('ZRANGEBYSCORE', till, '-inf', digits(now))) do leave(gone) end
end
local holds = at_once > 0 and redis.call('ZSCORE', held, turn)
local place = at_once > 0 and redis.call('ZRANK', since, turn)

local charge = false
if a_minute > 0 then
  redis.call('ZREMRANGEBYSCORE', begun, '-inf', digits(now - MINUTE))
  charge = not (counted or holds or place or redis.call('ZSCORE', begun, turn))
  local count = redis.call('ZCARD', begun)
  if charge and count >= a_minute then
    local first_to_go = redis.call('ZRANGE', begun, count - a_minute, count - a_minute, 'WITHSCORES')
    return {'rate', now, tonumber(first_to_go[2]) + MINUTE - now, reset()}
  end
end

local check_in = nil
if at_once > 0 and not holds then
  local before = place or redis.call('ZCARD', since)
  if before < at_once - redis.call('ZCARD', held) then
    if place then leave(turn) end
    holds = true
  else
    if stand_ms == 0 then return {'refused', now, SOON} end
    if not place and before >= places then return {'queue_full', now, SOON} end
    redis.call('ZADD', since, 'NX', digits(now), turn)
    redis.call('ZADD', till, digits(now + stand_ms), turn)
    redis.call('HSET', calls, turn, waiter_id)
    for _, key in ipairs({since, till, calls}) do redis.call('PEXPIRE', key, digits(stand_ms)) end
    local first = redis.call('ZRANGE', held, 0, 0, 'WITHSCORES')
    check_in = math.min(first[2] and tonumber(first[2]) - now or stand_ms, stand_ms / 2)
  end
end
if holds then
  redis.call('ZADD', held, digits(now + hold_ms), turn)
  redis.call('PEXPIRE', held, digits(hold_ms))
end
local remaining, whole_in = 0, 0
if a_minute > 0 then
  if charge then
    redis.call('ZADD', begun, digits(now), turn)
    redis.call('PEXPIRE', begun, MINUTE)
  end
  remaining, whole_in = math.max(a_minute - redis.call('ZCARD', begun), 0), reset()
end
if check_in then return {'wait', now, remaining, whole_in, math.floor(check_in)} end
return {'granted', now, remaining, whole_in}
