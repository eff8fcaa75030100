-- Creates a session without a turn. 
-- Reply ok: session
-- Reply exists
local agent_id, agent_uid, user, metadata, idle_ms, lifetime_ms, pinned = unpack(ARGV)
idle_ms, lifetime_ms = tonumber(idle_ms), tonumber(lifetime_ms)
if load() then return {'exists'} end
remove()
local expire = now + math.min(idle_ms, lifetime_ms)
redis.call('HSET', META, 'agent_id', agent_id, 'agent_uid', agent_uid, 'created', digits(now), 'activity', digits(now),
           'idle', digits(idle_ms), 'cap', digits(now + lifetime_ms), 'expire', digits(expire))
if user ~= '' then redis.call('HSET', META, 'user_id', user) end
if metadata ~= '' then redis.call('HSET', META, 'metadata', metadata) end
if pinned ~= '0' then redis.call('HSET', META, 'pinned', pinned) end
keep_until(expire, 0)
return {'ok', load().fields}
