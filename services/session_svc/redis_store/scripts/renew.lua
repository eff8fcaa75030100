-- Extends a held lease; `waiter_id`, if given, is woken when the lease is revoked.
-- `picked_up`: whether another gateway may take the turn over.
-- Reply ok: expire_ms, picked_up
-- Reply interrupted
-- Reply cancelled
-- Reply lost
local token, turn_id, lease_ms, waiter_id = unpack(ARGV)
token, lease_ms = tonumber(token), tonumber(lease_ms)
local session = load()
if not holds(session, token, turn_id) then return {lost(token)} end
local pickup_ms = 0
if session.pickup then
  if is_cancelled(session) then return {'cancelled'} end
  pickup_ms = session.busy_until - session.lease_until
end
local lease_until = now + lease_ms
redis.call('HSET', META, 'until', digits(lease_until))
if waiter_id ~= '' then redis.call('HSET', META, 'call', waiter_id) end
keep_until(session.expire, lease_until + pickup_ms, session.parts)
if redis.call('HEXISTS', META, 'journals') == 1 then
  redis.call('PEXPIREAT', JOURNAL, digits(redis.call('PEXPIRETIME', META)))
end
return {'ok', lease_until, pickup_ms > 0 and 1 or 0}
