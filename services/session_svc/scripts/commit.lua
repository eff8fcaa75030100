-- Stores a turn whole and releases the lease. A turn that is stored already is answered the same again.
-- Replies {'ok', number, expire} | {'interrupted'} | {'lost'} | {'crammed'}.
local token, turn_id, turn, messages, flags = tonumber(ARGV[1]), ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local prompt, completion, cached, revision = ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local idle_ms, request, digest = tonumber(ARGV[10]), ARGV[11], ARGV[12]
local replay_ms, most_replays = tonumber(ARGV[13]), tonumber(ARGV[14])
local most_turns, drop_oldest, claim_ms = tonumber(ARGV[15]), ARGV[16] == '1', tonumber(ARGV[17])
local id_sum = tonumber(ARGV[18])

local session = load()
if not holds(session, token, turn_id) then
  local number = session and number_of(token, id_sum, session)
  if number then
    -- A write, so that a WAIT behind it waits for the turn: WAIT knows only what its own connection wrote.
    redis.call('HSET', META, 'last', digits(session.last))
    return {'ok', number, session.expire}
  end
  return {lost(token)}
end

-- Field 2 of Turn, as a varint: the last one on the wire counts.
local function number_field(number)
  local bytes = {'\16'}
  while number >= 128 do
    bytes[#bytes + 1] = string.char(number % 128 + 128)
    number = math.floor(number / 128)
  end
  bytes[#bytes + 1] = string.char(number)
  return table.concat(bytes)
end

-- Keeps the outcome under its request id; the oldest ones go when there are too many or their time is up.
local function remember(number)
  local counters = redis.call('HMGET', REPLAY, 'first', 'last')
  local first, last = tonumber(counters[1] or 1), tonumber(counters[2] or 0) + 1
  redis.call('HSET', REPLAY, 'r' .. request, table.concat({number, digits(now + replay_ms), last, digest}, '|'),
             'n' .. last, request, 'last', last)
  for _ = 1, 2 do
    local oldest = redis.call('HGET', REPLAY, 'n' .. first) or ''
    local expiry, sequence = string.match(redis.call('HGET', REPLAY, 'r' .. oldest) or '', '^%d+|(%d+)|(%d+)|')
    local current = tonumber(sequence) == first
    if last - first < most_replays and current and tonumber(expiry) > now then break end
    redis.call('HDEL', REPLAY, 'n' .. first)
    if current then redis.call('HDEL', REPLAY, 'r' .. oldest) end
    first = first + 1
  end
  redis.call('HSET', REPLAY, 'first', first)
end

local number, first, held_messages = session.last + 1, session.first, session.messages + messages
if number - first >= most_turns and not drop_oldest then return {'crammed'} end
-- These can fail, and a script that fails undoes nothing: they come before the turn counts as stored.
if prompt ~= '0' then redis.call('HINCRBY', META, 'prompt', prompt) end
if completion ~= '0' then redis.call('HINCRBY', META, 'completion', completion) end
if cached ~= '0' then redis.call('HINCRBY', META, 'cached', cached) end
redis.call('RPUSH', TURNS, struct.pack(HEADER, messages, flags, number, token, id_sum) .. turn .. number_field(number))
while number - first + 1 > most_turns do
  held_messages = held_messages - struct.unpack('>I2', redis.call('LPOP', TURNS))
  first = first + 1
end
local expire = math.min(now + idle_ms, session.cap)
redis.call('HSET', META, 'last', number, 'messages', held_messages, 'activity', digits(now), 'idle', digits(idle_ms),
           'expire', digits(expire), 'done', turn_id)
if first > 1 then redis.call('HSET', META, 'first', first) end
if revision ~= '0' then redis.call('HSET', META, 'revision', revision) end
if request ~= '' then remember(number) end
release(claim_ms)
keep_until(expire, 0)
return {'ok', number, expire}
