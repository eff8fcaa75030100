-- What every script of a session shares; put in front of each of them.
--
-- KEYS  1 meta    hash: the session's fields and its lease (field names below)
--       2 turns   list: one element a turn, a header (`HEADER`) followed by the serialized Turn
--       3 replay  hash: 'r' .. request -> number|expiry|sequence|digest, 'n' .. sequence -> request; first and last sequence
--       4 queue   list of tickets, turn|call|deadline|reserved_until: who waits for the lease, in order
-- All times are this server's, in milliseconds.
local META, TURNS, REPLAY, QUEUE = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local LEASE_MARGIN = 5000
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- Lua writes whole numbers below 1e14 in digits; the server itself would write 1700000000000 as 1.7e+12.
local function digits(number)
  return number .. ''
end

-- Returns the session as it stands, or nil when it is dead. `held` says whether somebody has the lease; `fields` is
-- what callers of the scripts get, in the order of `redis_store.session_of`, followed by what they do not look at.
local function load()
  local v = redis.call('HMGET', META, 'agent_id', 'agent_uid', 'user_id', 'created', 'activity', 'idle', 'cap',
                       'expire', 'first', 'last', 'messages', 'prompt', 'completion', 'cached', 'revision', 'pinned',
                       'metadata', 'token', 'turn', 'until', 'call', 'new', 'request', 'digest', 'done')
  if not v[1] then return nil end
  local expire, lease_until = tonumber(v[8]), tonumber(v[20] or 0)
  local held = lease_until > now
  if not held and (v[22] or expire <= now) then return nil end
  return {
    fields = v, agent = v[1], uid = v[2], user = v[3] or '', created = tonumber(v[4]), activity = tonumber(v[5]),
    cap = tonumber(v[7]), expire = expire, first = tonumber(v[9] or 1), last = tonumber(v[10] or 0),
    messages = tonumber(v[11] or 0), token = tonumber(v[18] or 0), turn = v[19], lease_until = lease_until,
    call = v[21], new = v[22] and true or false, request = v[23] or '', digest = v[24], done = v[25], held = held,
  }
end

-- Gives all keys of the session one end: they go together, and never while a lease is held.
local function keep_until(expire, lease_until)
  local at = expire
  if lease_until > 0 then at = math.max(at, lease_until + LEASE_MARGIN) end
  at = digits(at)
  redis.call('PEXPIREAT', META, at)
  redis.call('PEXPIREAT', TURNS, at)
  redis.call('PEXPIREAT', REPLAY, at)
end

local function remove()
  redis.call('DEL', META, TURNS, REPLAY)
end

local function holds(session, token, turn)
  return session ~= nil and session.held and session.token == token and session.turn == turn
end

-- count of messages, flags (1: continues the turn before), number, fencing token, check sum of the turn id
local HEADER = '>I2BI4I8I4'

-- The fencing tokens of the stored turns grow (but a session that is made again may have those of the last once more), so the turn of a token is found from the end without looking further
-- than it could be; a retry that comes more than 1000 turns late finds nothing.
local function number_of(token, id_sum, session)
  for number = session.last, math.max(session.first, session.last - 1000), -1 do
    local element = redis.call('LINDEX', TURNS, number - session.last - 1)
    if not element then return nil end
    local _, _, _, stored_token, stored_sum = struct.unpack(HEADER, element)
    if stored_token == token and stored_sum == id_sum then return number end
    if stored_token <= token then return nil end
  end
  return nil
end

-- Returns the number of the turn that a request has had and the digest it came with; nil where none is stored for it.
local function stored_turn_of(session, request)
  if request == '' then return nil end
  local record = redis.call('HGET', REPLAY, 'r' .. request)
  if not record then return nil end
  local number, expiry, known = string.match(record, '^(%d+)|(%d+)|%d+|(.*)$')
  if tonumber(expiry) <= now or tonumber(number) < session.first then return nil end
  return tonumber(number), known
end

local function ticket_of(text)
  local turn, call, deadline, reserved = string.match(text, '^([^|]*)|([^|]*)|([^|]*)|([^|]*)$')
  return {turn = turn, call = call, deadline = tonumber(deadline), reserved = tonumber(reserved), text = text}
end

local function text_of(ticket)
  return ticket.turn .. '|' .. ticket.call .. '|' .. digits(ticket.deadline) .. '|' .. digits(ticket.reserved)
end

-- A call is named after the replica that it came in at, and that replica's channel.
local function wake(call)
  redis.call('PUBLISH', 'wake:' .. string.match(call, '^[^.]*'), call)
end

-- Returns the first ticket that still counts, nil when there is none. Tickets go when their caller has given up, or
-- did not come in the time for which the lease was reserved for it.
local function first_waiter()
  while true do
    local text = redis.call('LINDEX', QUEUE, 0)
    if not text then return nil end
    local ticket = ticket_of(text)
    if ticket.deadline > now and (ticket.reserved == 0 or ticket.reserved > now) then return ticket end
    redis.call('LPOP', QUEUE)
  end
end

-- Reserves the free lease for the first waiter and wakes it; returns until when, 0 when nobody waits.
local function hand_over(claim_ms)
  local ticket = first_waiter()
  if not ticket then return 0 end
  if ticket.reserved == 0 then
    ticket.reserved = now + claim_ms
    redis.call('LSET', QUEUE, 0, text_of(ticket))
    wake(ticket.call)
  end
  return ticket.reserved
end

-- Frees the lease and lets the next one have it. The session must still be there.
local function release(claim_ms)
  redis.call('HDEL', META, 'turn', 'until', 'call', 'request', 'digest', 'new')
  hand_over(claim_ms)
end

-- Ends a turn that stores nothing: a session that was made for it goes again.
local function undo(session, claim_ms)
  if session.new then
    remove()
    hand_over(claim_ms)
  else
    release(claim_ms)
    keep_until(session.expire, 0)
  end
end

-- Takes the ticket whose field has this value out of the queue and returns it, nil when there is none.
local function take_ticket(field, value)
  for _, text in ipairs(redis.call('LRANGE', QUEUE, 0, -1)) do
    local ticket = ticket_of(text)
    if ticket[field] == value then
      redis.call('LREM', QUEUE, 1, text)
      return ticket
    end
  end
  return nil
end

-- Gives up a ticket; a lease that was reserved for it goes to the next.
local function give_up(field, value, claim_ms)
  local ticket = take_ticket(field, value)
  if ticket and ticket.reserved > 0 then hand_over(claim_ms) end
end

-- Why a lease is not held: taken away on purpose, or run out.
local function lost(token)
  local interrupted = redis.call('HGET', META, 'interrupted') or ''
  for text in string.gmatch(interrupted, '%d+') do
    if tonumber(text) == token then return 'interrupted' end
  end
  return 'lost'
end
