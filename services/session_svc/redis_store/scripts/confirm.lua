-- Writes what is there once more, so that a WAIT behind it waits for all that was stored before. Replies 1.
local session = load()
if session then redis.call('HSET', META, 'last', digits(session.last)) end
return 1
