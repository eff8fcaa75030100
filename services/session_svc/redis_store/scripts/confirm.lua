-- Writes a field again, so that a following WAIT waits for all that was stored before. Replies 1.
local session = load()
if session then redis.call('HSET', META, 'last', digits(session.last)) end
return 1
