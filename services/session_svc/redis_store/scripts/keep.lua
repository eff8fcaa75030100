-- Gives the session the end of the one that it hangs on. Returns whether others hang on it, -1 where it is not there.
local expire_ms = unpack(ARGV)
local session = load()
if not session or session.new then return -1 end
local expire = math.min(tonumber(expire_ms), tonumber(session.cap))
redis.call('HSET', META, 'expire', digits(expire))
keep_until(expire, session.lease_until, session.parts)
return session.children and 1 or 0
