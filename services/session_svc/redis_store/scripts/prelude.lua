-- The common part of all scripts of a session, prepended to each; `journal.lua` follows it.
--
-- KEYS  1 meta    hash: the session's fields and its lease (field names below)
--       2 turns   list: one element a turn, a header (`HEADER`) and the serialized Turn, maybe compressed (turn_codec.py)
--       3 replay  hash: 'r' .. request -> number|expiry|sequence|digest, 'n' .. sequence -> request; first and last sequence
--       4 queue   list of tickets, turn|waiter|deadline|reserved_until: who waits for the lease, in order
--       5 journal stream: what turns that keep a journal have done (`journal.lua`)
--       6 parts   hash: 'c' .. digest -> a content that turns name and do not hold; index -> all of them (`parts` below)
-- Each script names its arguments in one `unpack(ARGV)`, and its replies in lines that begin with `-- Reply`; the tables of
-- both in `script_calls.py` are checked against them.
-- All times are this server's, in milliseconds.
local META, TURNS, REPLAY, QUEUE, JOURNAL, PARTS = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local LEASE_MARGIN = 5000
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- Formats an integer in digits; Lua would format 1700000000000 as 1.7e+12.
local function digits(number)
  return string.format('%d', number)
end

-- Ends the script with an error; the caller gets TURN_DAMAGED.
local function damaged(what)
  error({err = 'WRONGTYPE ' .. what})
end

-- Positions in `fields` of what a turn changes when it begins.
local ACTIVITY, IDLE, CAP, EXPIRE = 5, 6, 7, 8

-- Returns the current session, or nil if it has expired. `held`: whether a turn has the session; `fields` is
-- what callers of the scripts get, in the order of `session_codec.SessionFields`. One HGETALL takes half of what an HMGET
-- of all these fields does.
local function load()
  local pairs_of, v = redis.call('HGETALL', META), {}
  for index = 1, #pairs_of, 2 do v[pairs_of[index]] = pairs_of[index + 1] end
  if not v.agent_id then return nil end
  for _, name in ipairs({'created', 'activity', 'idle', 'cap', 'expire'}) do
    if not tonumber(v[name]) then damaged('a field of the session is gone') end
  end
  if not v.agent_uid then damaged('a field of the session is gone') end
  local expire, lease_until = tonumber(v.expire), tonumber(v['until'] or 0)
  -- A turn that another gateway may take over keeps its session beyond its lease: `pickup_of`.
  local busy_until = lease_until + (v.pickup and tonumber(string.match(v.pickup, '^%d+')) or 0)
  local held = busy_until > now
  if not held and (v.new or expire <= now) then return nil end
  return {
    fields = {
      v.agent_id, v.agent_uid, v.user_id or false, v.created, v.activity, v.idle, v.cap, v.expire, v.first or false,
      v.last or false, v.messages or false, v.prompt or false, v.completion or false, v.cached or false,
      v.revision or false, v.pinned or false, v.metadata or false, v.history or false,
      v.reasoning or false, v.cache_write or false, v.parts or false, held and v.turn or false, v.cancelled or false,
      v.calls or false,
    },
    agent = v.agent_id, uid = v.agent_uid, user = v.user_id or '', created = v.created, activity = v.activity,
    idle = v.idle, cap = v.cap, expire = expire, first = tonumber(v.first or 1), last = tonumber(v.last or 0),
    token = tonumber(v.token or 0), turn = v.turn, lease_until = lease_until, waiter = v.call,
    new = v.new and true or false, request = v.request or '', digest = v.digest, done = v.done, held = held,
    interrupted = v.interrupted, took = tonumber(v.took or 0), parts = v.parts, children = v.children,
    busy_until = busy_until, pickup = v.pickup, journals = v.journals,
  }
end

-- Sets one expiry for all keys of the session: they expire together, and never while a lease is held.
local function keep_until(expire, lease_until, parts)
  local at = expire
  if lease_until > 0 then at = math.max(at, lease_until + LEASE_MARGIN) end
  at = digits(at)
  redis.call('PEXPIREAT', META, at)
  redis.call('PEXPIREAT', TURNS, at)
  redis.call('PEXPIREAT', REPLAY, at)
  if parts then redis.call('PEXPIREAT', PARTS, at) end
end

local function remove()
  redis.call('DEL', META, TURNS, REPLAY, JOURNAL, PARTS)
end

local function holds(session, token, turn)
  return session ~= nil and session.held and session.token == token and session.turn == turn
end

-- count of messages, flags (1: continues the turn before, 2: is compressed), number, fencing token, check sum of the turn id
local HEADER = '>I2BI4I8I4'
local COMPRESSED = 2

-- Returns the number of a request's turn and the request's digest; nil if none is stored.
local function stored_turn_of(session, request)
  if request == '' then return nil end
  local record = redis.call('HGET', REPLAY, 'r' .. request)
  if not record then
    -- The whole hash is missing: whether this request has had its turn is unknown.
    if redis.call('EXISTS', REPLAY) == 0 and redis.call('HEXISTS', META, 'remembers') == 1 then
      damaged('stored outcomes of the session are gone')
    end
    return nil
  end
  local number, expiry, known = string.match(record, '^(%d+)|(%d+)|%d+|(.*)$')
  if tonumber(expiry) <= now or tonumber(number) < session.first then return nil end
  return tonumber(number), known
end

-- Whether two digests are of one request. Those of the previous release are the first 32 bytes of today's.
local function same_request(one, other)
  if one == other then return true end
  local length = math.min(#(one or ''), #(other or ''))
  return length == 32 and #one ~= #other and string.sub(one, 1, length) == string.sub(other, 1, length)
end

-- Returns the functions of the queue. A script creates its functions on each run, which costs more than most
-- of them do, and most turns find the queue empty: so only scripts that need them create these.
local function waiters()
  local function ticket_of(text)
    local turn, waiter, deadline, reserved = string.match(text, '^([^|]*)|([^|]*)|([^|]*)|([^|]*)$')
    return {turn = turn, waiter = waiter, deadline = tonumber(deadline or 0), reserved = tonumber(reserved or 0), text = text}
  end

  local function text_of(ticket)
    return ticket.turn .. '|' .. ticket.waiter .. '|' .. digits(ticket.deadline) .. '|' .. digits(ticket.reserved)
  end

  -- A waiter's id begins with its replica, and names that replica's channel.
  local function wake(waiter)
    redis.call('PUBLISH', 'wake:' .. string.match(waiter, '^[^.]*'), waiter)
  end

  -- Returns the first valid ticket, nil if there is none. Removes tickets whose caller has given up, or
  -- did not claim the lease while it was reserved for it.
  local function first_waiter()
    while true do
      local text = redis.call('LINDEX', QUEUE, 0)
      if not text then return nil end
      local ticket = ticket_of(text)
      if ticket.deadline > now and (ticket.reserved == 0 or ticket.reserved > now) then return ticket end
      redis.call('LPOP', QUEUE)
    end
  end

  -- Reserves the free lease for the first waiter and wakes it; returns until when, 0 without waiters.
  local function hand_over(claim_ms)
    local ticket = first_waiter()
    if not ticket then return 0 end
    if ticket.reserved == 0 then
      ticket.reserved = now + claim_ms
      redis.call('LSET', QUEUE, 0, text_of(ticket))
      wake(ticket.waiter)
    end
    return ticket.reserved
  end

  -- Removes the ticket whose field has this value from the queue and returns it, nil if there is none.
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

  -- Removes a ticket; a lease reserved for it is reserved for the next.
  local function give_up(field, value, claim_ms)
    local ticket = take_ticket(field, value)
    if ticket and ticket.reserved > 0 then hand_over(claim_ms) end
  end

  return {
    text_of = text_of, ticket_of = ticket_of, wake = wake, first = first_waiter, hand_over = hand_over,
    take = take_ticket, give_up = give_up,
  }
end

local function hand_over(claim_ms)
  if redis.call('LINDEX', QUEUE, 0) then waiters().hand_over(claim_ms) end
end

-- Releases the lease and reserves it for the next waiter. The session must still exist.
local function release(claim_ms)
  redis.call('HDEL', META, 'turn', 'until', 'call', 'request', 'digest', 'new', 'pickup')
  hand_over(claim_ms)
end

-- Ends a turn without storing it: a session that was created for it is removed.
local function undo(session, claim_ms)
  if session.new then
    local kept = redis.call('HMGET', META, 'user_id', 'journals', 'push', 'agent_uid')
    redis.call('DEL', META, TURNS, REPLAY, PARTS)
    if kept[2] then -- whoever watches it, or is to be notified, is still to learn how it ended
      redis.call('HSET', META, 'user_id', kept[1] or '', 'journals', kept[2], 'agent_uid', kept[4] or '')
      if kept[3] then redis.call('HSET', META, 'push', kept[3]) end
      redis.call('PEXPIRE', META, 600000)
    else
      redis.call('DEL', JOURNAL)
    end
    if session.interrupted then -- whoever was interrupted on the way is still to learn of it
      redis.call('HSET', META, 'interrupted', session.interrupted)
      redis.call('PEXPIRE', META, 600000)
    end
    hand_over(claim_ms)
  else
    release(claim_ms)
    keep_until(session.expire, 0, session.parts)
  end
end

-- Returns the functions of the contents that are kept beside the turns, for scripts that need them. An entry of the
-- index is a digest, the content's bytes, and the numbers of the first and the newest turn that refer to it; the last used
-- is last. META's `parts` is their total size in bytes.
local PART, PART_BYTES, MAX_PARTS = '>c16I4I4I4', 28, 1000
local function parts()
  local entries, by_digest, new, gone = {}, {}, {}, {}
  local packed = redis.call('HGET', PARTS, 'index') or ''
  for at = 1, #packed, PART_BYTES do
    local digest, size, first, last = struct.unpack(PART, packed, at)
    local entry = {digest = digest, size = size, first = first, last = last}
    entries[#entries + 1], by_digest[digest] = entry, entry
  end

  local function drop(entry)
    gone[#gone + 1], by_digest[entry.digest], new[entry.digest] = 'c' .. entry.digest, nil, nil
  end

  local function keep_those(fits)
    local kept = {}
    for _, entry in ipairs(entries) do
      if fits(entry) then kept[#kept + 1] = entry else drop(entry) end
    end
    entries = kept
  end

  -- Removes what only the turns from `number` on refer to.
  local function cut(number)
    keep_those(function(entry) return entry.first < number end)
    for _, entry in ipairs(entries) do entry.last = math.min(entry.last, number - 1) end
  end

  -- Removes what only the turns before `number` refer to.
  local function forget(number)
    keep_those(function(entry) return entry.last >= number end)
  end

  local function add(number, digest, content)
    local entry = by_digest[digest]
    if entry then
      for index, other in ipairs(entries) do
        if other == entry then table.remove(entries, index) break end
      end
      entry.last = math.max(entry.last, number)
      if redis.call('HSTRLEN', PARTS, 'c' .. digest) ~= #content then new[digest] = content end
    else
      entry = {digest = digest, first = number, last = number}
      by_digest[digest], new[digest] = entry, content
    end
    entry.size = #content
    entries[#entries + 1] = entry
  end

  -- Whether they are within the bounds; with `newest`, removes contents that no turn from there on refers to, oldest first.
  local function fit(max_bytes, newest)
    local total = 0
    for _, entry in ipairs(entries) do total = total + entry.size end
    while total > max_bytes or #entries > MAX_PARTS do
      if not newest or entries[1].last >= newest then return false end
      total = total - entries[1].size
      drop(table.remove(entries, 1))
    end
    return true
  end

  local function save()
    for index = 1, #gone, 100 do
      redis.call('HDEL', PARTS, unpack(gone, index, math.min(index + 99, #gone)))
    end
    if #entries == 0 then
      redis.call('DEL', PARTS)
      redis.call('HDEL', META, 'parts')
      return
    end
    local texts, total = {}, 0
    for index, entry in ipairs(entries) do
      texts[index] = struct.pack(PART, entry.digest, entry.size, entry.first, entry.last)
      total = total + entry.size
    end
    for digest, content in pairs(new) do redis.call('HSET', PARTS, 'c' .. digest, content) end
    redis.call('HSET', PARTS, 'index', table.concat(texts))
    redis.call('HSET', META, 'parts', digits(total))
  end

  return {cut = cut, forget = forget, add = add, fit = fit, save = save, any = function() return #entries > 0 end}
end

-- The tokens of revoked leases, newest first: the first in digits, then how much smaller each is than the one
-- before it. A number that is as large as a token is one, not a difference: earlier releases wrote only those.
local MAX_INTERRUPTED, INTERRUPTED_MS, MIN_TOKEN = 4096, 600000, 1000000000000

-- Returns the list with one more token at the front, without those too old to be asked for.
local function with_interrupted(list, token)
  local newest = list and tonumber(string.match(list, '^%d+'))
  if not newest or token - newest > INTERRUPTED_MS or token <= newest then return digits(token) end
  local rest = string.match(list, '^%d+(.*)$')
  list = digits(token) .. ',' .. digits(token - newest) .. rest
  if #list > MAX_INTERRUPTED then list = string.match(string.sub(list, 1, MAX_INTERRUPTED), '^(.*),') end
  return list
end

-- Why a lease is not held: revoked, or expired.
local function lost(token)
  local last = 0
  for text in string.gmatch(redis.call('HGET', META, 'interrupted') or '', '%d+') do
    local number = tonumber(text)
    last = number >= MIN_TOKEN and number or last - number
    if last == token then return 'interrupted' end
  end
  return 'lost'
end

-- Estimated milliseconds until a running turn ends: by the duration of the session's turns, else as long as it has
-- taken so far; at most the rest of its lease.
local function ends_in(session)
  local since = now - session.token
  local left = session.took > since and session.took - since or session.took > 0 and session.took or since
  return math.min(math.max(left, 1), math.max(session.lease_until - now, 1))
end
