-- Releases the lease of a turn that another gateway may take over; the session waits `wait_ms` for that.
-- Reply ok
-- Reply interrupted
-- Reply cancelled
-- Reply lost
local token, turn_id, wait_ms, queued = unpack(ARGV)
token, wait_ms = tonumber(token), tonumber(wait_ms)
local session = load()
if session and session.turn == turn_id and session.token == token + 1 and pickup_of(session).released then return {'ok'} end
-- If its lease has expired meanwhile, it is still the last that ran the turn.
local is_last = session and session.token == token and session.turn == turn_id
if not is_last or not session.pickup then
  -- A queued turn that went on under a later lease was handed over by a call whose answer was lost.
  local record = queued == '1' and journal().of(turn_id)
  local runs = session and session.turn == turn_id and session.pickup and session.token > token
  if record and (runs or record.token > token) then return {'ok'} end
  return {lost(token)}
end
local pickup = pickup_of(session)
if pickup.ms == 0 then return {'lost'} end
if pickup.cancelled then return {'cancelled'} end
pickup.ms, pickup.released = wait_ms, true
if queued == '1' then pickup.attempt = 0 end
save_pickup(pickup)
-- A new token fences off the previous holder of the lease.
redis.call('HSET', META, 'until', digits(now), 'token', digits(token + 1))
redis.call('HDEL', META, 'call')
keep_until(session.expire, now + wait_ms, session.parts)
redis.call('PEXPIREAT', JOURNAL, digits(redis.call('PEXPIRETIME', META)))
return {'ok'}
