-- Takes the turn lease, or says why not. Repeating it with the same turn id changes nothing but the call's name.
-- Replies {'ok', token, until, created, session} | {'replay', number, first, session} | {'wait', ms} | {'busy', ms}
--   | {'full', ms} | {'missing'} | {'mismatch', agent uid} | {'reused'} | {'crammed'}.
local turn_id, call, wait_ms, policy = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local queue_limit, lease_ms, claim_ms = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local agent_id, agent_uid, user, must_exist = ARGV[8], ARGV[9], ARGV[10], ARGV[11] == '1'
local idle_ms, lifetime_ms, request, digest = tonumber(ARGV[12]), tonumber(ARGV[13]), ARGV[14], ARGV[15]
local metadata, most_turns = ARGV[16], tonumber(ARGV[17])

local session = load()

local function refuse(...)
  give_up('turn', turn_id, claim_ms)
  return {...}
end

local function replay(number)
  give_up('turn', turn_id, claim_ms)
  return {'replay', number, session.first, session.fields}
end

-- The stored outcome of this request id, if it has one.
local function outcome()
  if session.done == turn_id then return replay(session.last) end
  local number, known = stored_turn_of(session, request)
  if not number then return nil end
  if known ~= digest then return refuse('reused') end
  return replay(number)
end

-- A place in the queue, or the answer that there is none. `free_at` is when asking again may help.
local function wait(free_at)
  local place, live, last_deadline = nil, 0, now + wait_ms
  for index, text in ipairs(redis.call('LRANGE', QUEUE, 0, -1)) do
    local ticket = ticket_of(text)
    if ticket.turn == turn_id then
      place = index - 1
      ticket.call, ticket.deadline = call, now + wait_ms
      redis.call('LSET', QUEUE, place, text_of(ticket))
    elseif ticket.deadline > now then
      live = live + 1
      last_deadline = math.max(last_deadline, ticket.deadline)
    end
  end
  if not place then
    if live >= queue_limit then return {'full', free_at - now} end
    redis.call('RPUSH', QUEUE, text_of({turn = turn_id, call = call, deadline = now + wait_ms, reserved = 0}))
  end
  redis.call('PEXPIREAT', QUEUE, digits(last_deadline + claim_ms))
  return {'wait', free_at - now}
end

local function take()
  local token, lease_until = math.max(now, (session and session.token or 0) + 1), now + lease_ms
  local lifetime_end, expire
  -- What an interrupted first turn made goes with it, but who was interrupted is still told so.
  local created = not session or session.new
  if created then
    lifetime_end = now + lifetime_ms
    expire = math.min(now + idle_ms, lifetime_end)
    local interrupted = session and redis.call('HGET', META, 'interrupted')
    remove()
    redis.call('HSET', META, 'agent_id', agent_id, 'agent_uid', agent_uid, 'created', digits(now), 'new', '1')
    if user ~= '' then redis.call('HSET', META, 'user_id', user) end
    if metadata ~= '' then redis.call('HSET', META, 'metadata', metadata) end
    if interrupted then redis.call('HSET', META, 'interrupted', interrupted) end
  else
    lifetime_end = session.created + lifetime_ms
    expire = math.min(now + idle_ms, lifetime_end)
    if session.request ~= '' then redis.call('HDEL', META, 'request', 'digest') end
  end
  redis.call('HSET', META, 'activity', digits(now), 'idle', ARGV[12], 'cap', digits(lifetime_end),
             'expire', digits(expire), 'token', digits(token), 'turn', turn_id, 'until', digits(lease_until),
             'call', call)
  if request ~= '' then redis.call('HSET', META, 'request', request, 'digest', digest) end
  keep_until(expire, lease_until)
  if created then return {'ok', token, lease_until, 1, load().fields} end
  local fields = session.fields
  fields[5], fields[6], fields[7], fields[8] = digits(now), ARGV[12], digits(lifetime_end), digits(expire)
  return {'ok', token, lease_until, 0, fields}
end

if session then
  if session.user ~= user then return refuse('missing') end
  if session.uid ~= agent_uid then return refuse('mismatch', session.uid) end
  local known = outcome()
  if known then return known end
  if session.held and session.turn == turn_id then
    redis.call('HSET', META, 'call', call)
    return {'ok', session.token, session.lease_until, session.new and 1 or 0, session.fields}
  end
  if most_turns > 0 and session.last - session.first + 1 >= most_turns then return refuse('crammed') end
elseif must_exist then
  return refuse('missing')
end

local same_request = session and session.held and request ~= '' and session.request == request
if same_request then
  if session.digest ~= digest then return refuse('reused') end
  policy = 'wait'
end

local free_at, queued = nil, true
if session and session.held then
  if policy == 'interrupt' then
    local before = redis.call('HGET', META, 'interrupted') or ''
    redis.call('HSET', META, 'interrupted', string.sub(digits(session.token) .. ',' .. before, 1, 56))
    wake(session.call)
  else
    free_at = session.lease_until
  end
else
  local first = first_waiter()
  queued = first ~= nil
  if first and first.turn ~= turn_id and policy ~= 'interrupt' then free_at = hand_over(claim_ms) end
end

if free_at then
  if policy == 'wait' and wait_ms > 0 then return wait(free_at) end
  return refuse('busy', free_at - now)
end

if queued then
  take_ticket('turn', turn_id)
  local first = first_waiter()
  if first and first.reserved > 0 then -- interrupted before it came: it stays the first
    first.reserved = 0
    redis.call('LSET', QUEUE, 0, text_of(first))
  end
end
return take()
