-- Extends a lease that is held; `waiter_id`, where given, is woken when the lease is taken away.
-- Reply ok: expire_ms
-- Reply interrupted
-- Reply lost
local token, turn_id, lease_ms, waiter_id = unpack(ARGV)
token, lease_ms = tonumber(token), tonumber(lease_ms)
local session = load()
if not holds(session, token, turn_id) then return {lost(token)} end
local lease_until = now + lease_ms
redis.call('HSET', META, 'until', digits(lease_until))
if waiter_id ~= '' then redis.call('HSET', META, 'call', waiter_id) end
keep_until(session.expire, lease_until, session.parts)
if redis.call('HEXISTS', META, 'journals') == 1 then
  redis.call('PEXPIREAT', JOURNAL, digits(redis.call('PEXPIRETIME', META)))
end
return {'ok', lease_until}
