-- Gives a dependent session the expiry of its parent. Returns whether it has dependents itself, -1 if it does not exist.
local expire_ms = unpack(ARGV)
local session = load()
if not session or session.new then return -1 end
local expire = math.min(tonumber(expire_ms), tonumber(session.cap))
redis.call('HSET', META, 'expire', digits(expire))
keep_until(expire, session.lease_until, session.parts)
return session.children and 1 or 0
