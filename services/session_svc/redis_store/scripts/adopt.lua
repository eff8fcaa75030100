-- Notes that a session hangs on this one. Returns 0 where this one is not there.
if not load() then return 0 end
redis.call('HSET', META, 'children', 1)
return 1
