-- Reads a part of a turn's journal; if there is nothing new while the turn runs, `waiter_id` is woken by the next entry.
-- Reply ok: ended, held, entries
-- Reply missing
local turn_id, user, after, waiter_id, max_events, max_bytes, max_watchers = unpack(ARGV)
max_events, max_bytes, max_watchers = tonumber(max_events), tonumber(max_bytes), tonumber(max_watchers)
local v = redis.call('HMGET', META, 'user_id', 'expire', 'until', 'turn', 'watchers', 'agent_id', 'pickup')
local busy_until = tonumber(v[3] or 0) + (v[7] and tonumber(string.match(v[7], '^%d+')) or 0)
local held = busy_until > now and v[4] == turn_id
local alive = held or not v[6] or tonumber(v[2] or 0) > now
local record = alive and (v[1] or '') == user and journal().of(turn_id)
if not record then return {'missing'} end
local entries, bytes, position = {}, 0, after == '' and record.first or '(' .. after
local last, complete = record.last, false
while #entries < max_events and bytes < max_bytes and not complete do
  local page = redis.call('XRANGE', JOURNAL, position, last, 'COUNT', 64)
  complete = #page < 64
  for index, entry in ipairs(page) do
    position = '(' .. entry[1]
    if entry[2][2] == turn_id then
      entries[#entries + 1] = {entry[1], entry[2]}
      bytes = bytes + #entry[2][4]
      if #entries >= max_events or bytes >= max_bytes then
        complete = complete and index == #page
        break
      end
    end
  end
end
local ended = record.ended > 0 and complete
if #entries == 0 and not ended then
  local list, held_by = v[5] or '', 0
  for _ in string.gmatch(list, '[^;]+') do held_by = held_by + 1 end
  if held_by < max_watchers and not string.find(list, waiter_id, 1, true) then redis.call('HSET', META, 'watchers', list .. waiter_id .. ';') end
end
return {'ok', ended and 1 or 0, held and 1 or 0, entries}
