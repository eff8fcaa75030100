-- Copies stored turns unchanged into a session that is being created under a lease; the last call releases it.
-- The elements of the turns follow the named arguments.
-- Reply ok: session
-- Reply lost
local token, turn_id, lease_ms, first, last, messages, revision, pinned, complete = unpack(ARGV, 1, 9)
token, lease_ms, complete = tonumber(token), tonumber(lease_ms), complete == '1'
local session = load()
if not holds(session, token, turn_id) then return {'lost'} end
for index = 10, #ARGV do redis.call('RPUSH', TURNS, ARGV[index]) end
if complete then
  local newest = redis.call('LINDEX', TURNS, -1)
  if newest then -- the tokens of a session's turns grow, so that later leases must start from here
    local _, _, _, newest_token = struct.unpack(HEADER, newest)
    redis.call('HSET', META, 'token', digits(math.max(token, newest_token)))
  end
  redis.call('HSET', META, 'first', first, 'last', last, 'messages', messages, 'revision', revision,
             'pinned', pinned)
  release(0)
  keep_until(session.expire, 0, session.parts)
else
  redis.call('HSET', META, 'until', digits(now + lease_ms))
  keep_until(session.expire, now + lease_ms, session.parts)
end
local changed = load()
if not changed then return {'lost'} end
return {'ok', changed.fields}
