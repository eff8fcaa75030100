-- Adds contents that copied turns refer to, to a session that is being created under a lease.
-- Number of the turn, digest and content of each follow the named arguments.
-- Reply ok: session
-- Reply lost
local token, turn_id, lease_ms = unpack(ARGV, 1, 3)
local session = load()
if not holds(session, tonumber(token), turn_id) then return {'lost'} end
local kept = parts()
for index = 4, #ARGV, 3 do kept.add(tonumber(ARGV[index]), ARGV[index + 1], ARGV[index + 2]) end
kept.save()
local lease_until = now + tonumber(lease_ms)
redis.call('HSET', META, 'until', digits(lease_until))
keep_until(session.expire, lease_until, true)
return {'ok', session.fields}
