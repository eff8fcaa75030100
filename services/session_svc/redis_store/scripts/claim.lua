-- Takes the lease of a turn that no gateway runs. If it has lost `max_lost` gateways or was cancelled, ends it instead.
-- Reply ok: token, expire_ms, attempt, request
-- Reply held: ms
-- Reply gone
local turn_id, lease_ms, pickup_ms, max_lost, keep_ms, claim_ms = unpack(ARGV)
lease_ms, pickup_ms, keep_ms, claim_ms = tonumber(lease_ms), tonumber(pickup_ms), tonumber(keep_ms), tonumber(claim_ms)
local session = load()
local record = journal().of(turn_id)
local open = record and record.ended == 0
if not session or session.turn ~= turn_id or not session.pickup or not open then
  if open then end_unheard(turn_id, lost(record.token), keep_ms) end
  return {'gone'}
end
if session.lease_until > now then return {'held', session.lease_until - now} end
local pickup = pickup_of(session)
if not pickup.released then pickup.lost = pickup.lost + 1 end
local why = pickup.cancelled and 'cancelled' or pickup.lost >= tonumber(max_lost) and 'given_up'
if why then
  end_unheard(turn_id, why, keep_ms)
  undo(session, claim_ms)
  return {'gone'}
end
local token, lease_until = math.max(now, session.token + 1), now + lease_ms
pickup.ms, pickup.attempt, pickup.released = pickup_ms, pickup.attempt + 1, false
save_pickup(pickup)
redis.call('HSET', META, 'token', digits(token), 'until', digits(lease_until))
redis.call('HDEL', META, 'call')
keep_until(session.expire, lease_until + pickup_ms, session.parts)
redis.call('PEXPIREAT', JOURNAL, digits(redis.call('PEXPIRETIME', META)))
local first = redis.call('XRANGE', JOURNAL, record.first, record.first)[1]
if not first or first[2][2] ~= '?' .. turn_id then damaged('the request of a turn is gone') end
return {'ok', token, lease_until, pickup.attempt, first[2][4]}
