-- Adds events to the journal of a turn that holds its lease; those that were added before are not added again.
-- Reply ok: event_id
-- Reply interrupted
-- Reply lost
-- Reply full
local token, turn_id, first, keep_ms, max_bytes = unpack(ARGV, 1, 5)
token, first, keep_ms = tonumber(token), tonumber(first), tonumber(keep_ms)
local session = load()
if not holds(session, token, turn_id) then return {lost(token)} end
local functions = journal()
local record = functions.begun(turn_id, token, keep_ms)
local known = record.token == token and record.sequence or 0
local from, bytes = 6 + math.max(known - first + 1, 0), 0
for index = from, #ARGV do bytes = bytes + #ARGV[index] + ENTRY_OVERHEAD end
if not functions.room(record, bytes, tonumber(max_bytes)) then return {'full'} end
for index = from, #ARGV do functions.add(record, token, ARGV[index]) end
functions.save()
redis.call('PEXPIREAT', JOURNAL, digits(redis.call('PEXPIRETIME', META)))
return {'ok', record.last}
