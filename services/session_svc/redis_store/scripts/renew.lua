-- Extends a lease that is held; `call`, where given, is woken when the lease is taken away.
-- Replies {'ok', until} | {'interrupted'} | {'lost'}.
local token, turn_id, lease_ms, call = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), ARGV[4]
local session = load()
if not holds(session, token, turn_id) then return {lost(token)} end
local lease_until = now + lease_ms
redis.call('HSET', META, 'until', digits(lease_until))
if call ~= '' then redis.call('HSET', META, 'call', call) end
keep_until(session.expire, lease_until)
return {'ok', lease_until}
