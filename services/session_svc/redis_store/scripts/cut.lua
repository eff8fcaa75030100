-- Removes the newest turn, with the record of its request, if its id has this check sum and
-- no turn is running. Its usage stays counted. The calls of the turn before it that it made
-- are `begun`, a JSON array: that turn is the newest again, and they may be approved again.
-- Reply ok: session
-- Reply missing
-- Reply busy: ms
-- Reply not_last
local user, id_sum, begun = unpack(ARGV)
local session = load()
if not session or (user ~= '' and session.user ~= user) then return {'missing'} end
if session.held then return {'busy', ends_in(session)} end
local element = redis.call('LINDEX', TURNS, -1)
if not element then return {'missing'} end
local messages, _, number, _, stored_sum = struct.unpack(HEADER, element)
if stored_sum ~= tonumber(id_sum) then return {'not_last'} end
local replays = redis.call('HGETALL', REPLAY)
local held_messages = digits(redis.call('HGET', META, 'messages') - messages)
local kept = session.parts and parts()
redis.call('RPOP', TURNS)
if kept then
  kept.cut(number)
  kept.save()
end
for index = 1, #replays, 2 do
  local turn_number = string.sub(replays[index], 1, 1) == 'r' and string.match(replays[index + 1], '^(%d+)|')
  if turn_number and tonumber(turn_number) >= number then redis.call('HDEL', REPLAY, replays[index]) end
end
-- The digest is of a history that no longer exists; a journal may still hold messages of it.
redis.call('HSET', META, 'last', number - 1, 'messages', held_messages, 'history', '')
redis.call('HDEL', META, 'done', 'journals', 'calls')
if begun ~= '' then redis.call('HSET', META, 'calls', begun) end
redis.call('DEL', JOURNAL)
return {'ok', load().fields}
