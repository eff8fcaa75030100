-- Adds events to the journal of a turn that holds its lease; those that were added before are not added again. With the
-- first, `request` lets another gateway take the turn over, for which its session waits `pickup_ms` behind its lease.
-- `calls` are calls of the turn before that this one begins, and those that it does not make, as two JSON arrays: META's
-- `calls` has those that were begun, until a turn is stored.
-- Reply ok: event_id
-- Reply interrupted
-- Reply cancelled
-- Reply lost
-- Reply full
local token, turn_id, first, keep_ms, max_bytes, pickup_ms, request, calls = unpack(ARGV, 1, 8)
token, first, keep_ms = tonumber(token), tonumber(first), tonumber(keep_ms)
local session = load()
if not holds(session, token, turn_id) then return {lost(token)} end
if is_cancelled(session) then return {'cancelled'} end
local functions = journal()
local record = functions.begun(turn_id, token, keep_ms)
local from, bytes = functions.new(record, token, first, 9, #ARGV)
local begins = not record.first and request ~= ''
if begins then bytes = bytes + #request + ENTRY_OVERHEAD end
if not functions.room(record, bytes, tonumber(max_bytes)) then return {'full'} end
if begins then
  functions.hold_request(record, request)
  save_pickup({ms = tonumber(pickup_ms), attempt = 1, lost = 0})
  keep_until(session.expire, session.lease_until + pickup_ms, session.parts)
end
for index = from, #ARGV do functions.add(record, token, ARGV[index]) end
if calls ~= '' then
  local begun, all = {}, {}
  local new, not_made = unpack(cjson.decode(calls))
  for _, some in ipairs({cjson.decode(redis.call('HGET', META, 'calls') or '[]'), new}) do
    for _, call in ipairs(some) do begun[call] = true end
  end
  for _, call in ipairs(not_made) do begun[call] = nil end
  for call in pairs(begun) do all[#all + 1] = call end
  if all[1] then redis.call('HSET', META, 'calls', cjson.encode(all)) else redis.call('HDEL', META, 'calls') end
end
functions.save()
redis.call('PEXPIREAT', JOURNAL, digits(redis.call('PEXPIRETIME', META)))
return {'ok', record.last}
