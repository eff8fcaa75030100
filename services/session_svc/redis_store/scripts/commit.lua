-- Stores a turn atomically and releases the lease. A repeat for a stored turn gets the same reply.
-- Reply ok: number, expire_ms, children, event_id
-- Reply interrupted
-- Reply lost
-- Reply full
-- Reply session_full
-- Reply parts_full
-- The last events of the turn's journal follow the named arguments, as many as `events` says, the first with the number
-- `first_event`; then digest and content of each content of the turn.
local token, turn_id, turn, messages, flags, prompt, completion, cached, reasoning, cache_write, revision, idle_ms,
  request, digest, replay_ms, max_replays, max_turns, drop_oldest, claim_ms, id_sum, history, cut_after, end_event, keep_ms,
  max_part_bytes, max_bytes, first_event, events = unpack(ARGV, 1, 28)
local named = 28 + tonumber(events)
token, messages, flags, id_sum = tonumber(token), tonumber(messages), tonumber(flags), tonumber(id_sum)
max_turns, drop_oldest, claim_ms = tonumber(max_turns), drop_oldest == '1', tonumber(claim_ms)

-- Reads only the fields in use: a session with a lease is alive, whatever else it holds.
local v = redis.call('HMGET', META, 'token', 'turn', 'until', 'cap', 'first', 'last', 'messages', 'prompt',
                     'completion', 'revision', 'took', 'parts', 'children', 'calls')
if v[2] ~= turn_id or tonumber(v[1]) ~= token or tonumber(v[3]) <= now then
  local session = load()
  if not session then return {lost(token)} end
  -- The fencing tokens of the stored turns increase (but a recreated session may have those of the previous one
  -- more), so the turn of a token is found from the end without looking further than it could be; a retry that comes
  -- more than 1000 turns late finds nothing.
  for number = session.last, math.max(session.first, session.last - 1000), -1 do
    local element = redis.call('LINDEX', TURNS, number - session.last - 1)
    if not element then break end
    local _, _, _, stored_token, stored_sum = struct.unpack(HEADER, element)
    if stored_token == token and stored_sum == id_sum then
      -- A write, so that a following WAIT waits for the turn: WAIT covers only writes of its own connection.
      redis.call('HSET', META, 'last', digits(session.last))
      local record = named > 28 and journal().of(turn_id)
      local newest = record and redis.pcall('XREVRANGE', JOURNAL, record.last, '-', 'COUNT', 2) or {}
      return {'ok', number, session.expire, session.children and 1 or 0, newest[2] and newest[2][1] or ''}
    end
    if stored_token <= token then break end
  end
  return {lost(token)}
end

-- Field 2 of Turn, as a varint: the last one on the wire counts. Readers add it to a compressed turn.
local function number_field(number)
  local bytes = {'\16'}
  while number >= 128 do
    bytes[#bytes + 1] = string.char(number % 128 + 128)
    number = math.floor(number / 128)
  end
  bytes[#bytes + 1] = string.char(number)
  return table.concat(bytes)
end

-- Records the outcome under its request id; the oldest are removed if there are too many, or they have expired.
local function remember(number)
  local counters = redis.call('HMGET', REPLAY, 'first', 'last')
  local first, last = tonumber(counters[1] or 1), tonumber(counters[2] or 0) + 1
  if last == 1 then redis.call('HSET', META, 'remembers', 1) end
  redis.call('HSET', REPLAY, 'r' .. request, table.concat({number, digits(now + replay_ms), last, digest}, '|'),
             'n' .. last, request, 'last', last)
  for _ = 1, 2 do
    local oldest = redis.call('HGET', REPLAY, 'n' .. first) or ''
    local expiry, sequence = string.match(redis.call('HGET', REPLAY, 'r' .. oldest) or '', '^%d+|(%d+)|(%d+)|')
    local current = tonumber(sequence) == first
    if last - first < tonumber(max_replays) and current and tonumber(expiry) > now then break end
    redis.call('HDEL', REPLAY, 'n' .. first)
    if current then redis.call('HDEL', REPLAY, 'r' .. oldest) end
    first = first + 1
  end
  redis.call('HSET', REPLAY, 'first', first)
end

local functions, record, new_from, new_bytes = nil, nil, nil, nil
if named > 28 then
  functions = journal()
  record = functions.begun(turn_id, token, tonumber(keep_ms))
  new_from, new_bytes = functions.new(record, token, tonumber(first_event), 29, named)
  if not functions.room(record, new_bytes, tonumber(max_bytes)) then return {'full'} end
end
local HOLE = 'WRONGTYPE turns of the session are gone'
local number, first, held_messages = tonumber(v[6] or 0) + 1, tonumber(v[5] or 1), (v[7] or 0) + messages
-- Removes the turns after `cut_after`, with the records of their requests.
local newest, replays = number - 1, {}
if cut_after ~= '-' then
  replays = redis.call('HGETALL', REPLAY)
  if redis.call('LLEN', TURNS) ~= newest - first + 1 then return redis.error_reply(HOLE) end
  number = math.min(number, math.max(tonumber(cut_after) + 1, first))
end
if number - first >= max_turns and not drop_oldest then return {'session_full'} end
local kept = (v[12] or #ARGV > named) and parts()
if kept then
  kept.cut(number)
  for index = named + 1, #ARGV, 2 do kept.add(number, ARGV[index], ARGV[index + 1]) end
  if not kept.fit(tonumber(max_part_bytes), drop_oldest and number) then return {'parts_full'} end
end
-- These can fail, and a failed script is not rolled back: they precede all removals, and the turn counts as stored.
local prompt_sum, completion_sum = digits((v[8] or 0) + prompt), digits((v[9] or 0) + completion)
if cached ~= '0' then redis.call('HINCRBY', META, 'cached', cached) end
if reasoning ~= '0' then redis.call('HINCRBY', META, 'reasoning', reasoning) end
if cache_write ~= '0' then redis.call('HINCRBY', META, 'cache_write', cache_write) end
if flags < COMPRESSED then turn = turn .. number_field(number) end
for _ = number, newest do
  held_messages = held_messages - struct.unpack('>I2', redis.call('RPOP', TURNS))
end
for index = 1, #replays, 2 do
  local turn_number = string.sub(replays[index], 1, 1) == 'r' and string.match(replays[index + 1], '^(%d+)|')
  if turn_number and tonumber(turn_number) >= number then redis.call('HDEL', REPLAY, replays[index]) end
end
local length = redis.call('RPUSH', TURNS, struct.pack(HEADER, messages, flags, number, token, id_sum) .. turn)
if length ~= number - first + 1 then -- turns are gone from beside their session: nothing goes behind a hole
  redis.call('RPOP', TURNS)
  return redis.error_reply(HOLE)
end
while number - first + 1 > max_turns do
  held_messages = held_messages - struct.unpack('>I2', redis.call('LPOP', TURNS))
  first = first + 1
end
if kept then
  if first > tonumber(v[5] or 1) then kept.forget(first) end
  kept.save()
end
local expire = math.min(now + idle_ms, tonumber(v[4]))
-- How long turns of the session take, for the callers refused meanwhile: a token is the time at which it was issued.
local took = math.max(now - token, 1)
if v[11] then took = math.ceil(0.75 * v[11] + 0.25 * took) end
redis.call('HSET', META, 'last', number, 'messages', held_messages, 'activity', digits(now), 'idle', idle_ms,
           'expire', digits(expire), 'done', turn_id, 'prompt', prompt_sum, 'completion', completion_sum,
           'took', took,
           'history', history ~= '' and digits(number) .. ':' .. history or '')
if first > 1 then redis.call('HSET', META, 'first', first) end
if v[14] then redis.call('HDEL', META, 'calls') end
if revision ~= '0' and revision ~= v[10] then redis.call('HSET', META, 'revision', revision) end
if request ~= '' then remember(number) end
release(claim_ms)
keep_until(expire, 0, kept and kept.any())
local event_id = ''
if not record then
  end_journal(true, turn_id, token, end_event, keep_ms, 'n', number, 'x', digits(expire))
elseif pcall(function() for index = new_from, named do functions.add(record, token, ARGV[index]) end end) then
  event_id = record.last
  functions.finish(record, token, keep_ms, end_event, 'n', number, 'x', digits(expire))
end
return {'ok', number, expire, v[13] and 1 or 0, event_id}
