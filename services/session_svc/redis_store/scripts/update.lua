-- Changes the given fields ('-' keeps one). 
-- Reply ok: session
-- Reply missing
local user, metadata, idle_ms, pinned = unpack(ARGV)
local session = load()
if not session or (user ~= '' and session.user ~= user) then return {'missing'} end
if metadata ~= '-' then
  if metadata == '' then redis.call('HDEL', META, 'metadata') else redis.call('HSET', META, 'metadata', metadata) end
end
if pinned ~= '-' then
  if pinned == '0' then redis.call('HDEL', META, 'pinned') else redis.call('HSET', META, 'pinned', pinned) end
end
if idle_ms ~= '-' then
  local expire = math.min(session.activity + tonumber(idle_ms), session.cap)
  redis.call('HSET', META, 'idle', idle_ms, 'expire', digits(expire))
  keep_until(expire, session.held and session.busy_until or 0, session.parts)
end
local changed = load() -- nothing is left when its time is up by the new idle TTL
if not changed then return {'missing'} end
return {'ok', changed.fields}
