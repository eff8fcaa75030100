-- Takes the turn lease, or says why not. Repeating it with the same turn id changes nothing but the call's name.
-- Replies {'ok', token, until, created, session} | {'replay', number, first, session} | {'wait', ms} | {'busy', ms}
--   | {'full', ms} | {'missing'} | {'mismatch', agent uid} | {'reused'} | {'crammed'}.
local turn_id, call, wait_ms, policy = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local claim_ms = tonumber(ARGV[7])
local agent_id, agent_uid, user, must_exist = ARGV[8], ARGV[9], ARGV[10], ARGV[11] == '1'
local request, digest, max_turns = ARGV[14], ARGV[15], tonumber(ARGV[17])

local session = load()

local function refuse(...)
  waiters().give_up('turn', turn_id, claim_ms)
  return {...}
end

if session then
  if session.user ~= user then return refuse('missing') end
  if session.uid ~= agent_uid then return refuse('mismatch', session.uid) end
  -- The stored outcome of this turn or request, if it has one.
  local number, known = session.done == turn_id and session.last, digest
  if not number then number, known = stored_turn_of(session, request) end
  if number and known ~= digest then return refuse('reused') end
  if number then return refuse('replay', number, session.first, session.fields) end
  if session.held and session.turn == turn_id then
    redis.call('HSET', META, 'call', call)
    return {'ok', session.token, session.lease_until, session.new and 1 or 0, session.fields}
  end
  if max_turns > 0 and session.last - session.first + 1 >= max_turns then return refuse('crammed') end
elseif must_exist then
  return refuse('missing')
end

local same_request = session and session.held and request ~= '' and session.request == request
if same_request then
  if session.digest ~= digest then return refuse('reused') end
  policy = 'wait'
end

local interrupted = session and session.interrupted
local free_at, queued = nil, true
if session and session.held then
  if policy == 'interrupt' then
    interrupted = string.sub(digits(session.token) .. ',' .. (interrupted or ''), 1, 56)
    redis.call('HSET', META, 'interrupted', interrupted)
    waiters().wake(session.call)
  else
    free_at = session.lease_until
  end
else
  local first = redis.call('LINDEX', QUEUE, 0) and waiters().first()
  queued = first and true or false
  if queued and first.turn ~= turn_id and policy ~= 'interrupt' then free_at = waiters().hand_over(claim_ms) end
end

if free_at then
  if policy ~= 'wait' or wait_ms <= 0 then return refuse('busy', free_at - now) end
  -- A place in the queue, or the answer that there is none. `free_at` is when asking again may help.
  local queue, place, live, last_deadline = waiters(), nil, 0, now + wait_ms
  for index, text in ipairs(redis.call('LRANGE', QUEUE, 0, -1)) do
    local ticket = queue.ticket_of(text)
    if ticket.turn == turn_id then
      place = index - 1
      ticket.call, ticket.deadline = call, now + wait_ms
      redis.call('LSET', QUEUE, place, queue.text_of(ticket))
    elseif ticket.deadline > now then
      live = live + 1
      last_deadline = math.max(last_deadline, ticket.deadline)
    end
  end
  if not place then
    if live >= tonumber(ARGV[5]) then return {'full', free_at - now} end
    local ticket = {turn = turn_id, call = call, deadline = now + wait_ms, reserved = 0}
    redis.call('RPUSH', QUEUE, queue.text_of(ticket))
  end
  redis.call('PEXPIREAT', QUEUE, digits(last_deadline + claim_ms))
  return {'wait', free_at - now}
end

if queued then
  local queue = waiters()
  queue.take('turn', turn_id)
  local first = queue.first()
  if first and first.reserved > 0 then -- interrupted before it came: it stays the first
    first.reserved = 0
    redis.call('LSET', QUEUE, 0, queue.text_of(first))
  end
end

local token, lease_until = math.max(now, (session and session.token or 0) + 1), now + ARGV[6]
-- What an interrupted first turn made goes with it, but who was interrupted is still told so.
local created = not session or session.new
local lifetime_end = (created and now or session.created) + ARGV[13]
local expire = math.min(now + ARGV[12], lifetime_end)
local now_text, expire_text = digits(now), digits(expire)
if created then
  remove()
  redis.call('HSET', META, 'agent_id', agent_id, 'agent_uid', agent_uid, 'created', now_text, 'new', '1')
  if user ~= '' then redis.call('HSET', META, 'user_id', user) end
  if ARGV[16] ~= '' then redis.call('HSET', META, 'metadata', ARGV[16]) end
  if interrupted then redis.call('HSET', META, 'interrupted', interrupted) end
elseif session.request ~= '' then
  redis.call('HDEL', META, 'request', 'digest')
end
if created or session.idle ~= ARGV[12] or tonumber(session.cap) ~= lifetime_end then
  redis.call('HSET', META, 'idle', ARGV[12], 'cap', digits(lifetime_end))
end
redis.call('HSET', META, 'activity', now_text, 'expire', expire_text, 'token', digits(token), 'turn', turn_id,
           'until', digits(lease_until), 'call', call)
if request ~= '' then redis.call('HSET', META, 'request', request, 'digest', digest) end
keep_until(expire, lease_until)
if created then return {'ok', token, lease_until, 1, load().fields} end
local fields = session.fields
fields[5], fields[6], fields[7], fields[8] = now_text, ARGV[12], digits(lifetime_end), expire_text
return {'ok', token, lease_until, 0, fields}
