-- Takes the turn lease, or replies why it is not available. A repeat with the same turn id changes only the waiter's id.
-- Reply ok: token, expire_ms, left_ms, created, session, children
-- Reply joined: turn_id
-- Reply replay: number, first, session
-- Reply wait: ms
-- Reply busy: ms
-- Reply queue_full: ms
-- Reply missing
-- Reply mismatch: agent_uid
-- Reply reused
-- Reply session_full
-- Reply lost
local turn_id, waiter_id, wait_ms, policy, max_waiters, lease_ms, claim_ms, agent_id, agent_uid, user, must_exist, idle_ms,
  lifetime_ms, request, digest, metadata, max_turns, joins, keep_ms = unpack(ARGV)
wait_ms, claim_ms, max_turns, must_exist = tonumber(wait_ms), tonumber(claim_ms), tonumber(max_turns), must_exist == '1'

local session, left = load(), nil

local function refuse(...)
  waiters().give_up('turn', turn_id, claim_ms)
  return {...}
end

-- Whether the turn has begun before, and is over: a late begin must not begin it anew, nor take its journal away.
local function is_over(journals)
  if not journals or not string.find(journals, turn_id, 1, true) then return false end
  local record = journal().of(turn_id)
  return record and (record.ended > 0 or not session or session.turn ~= turn_id)
end

if session then
  if session.user ~= user then return refuse('missing') end
  if session.uid ~= agent_uid and session.uid ~= '' and agent_uid ~= '' then return refuse('mismatch', session.uid) end
  -- The stored outcome of this turn or request, if it has one.
  local number, known = session.done == turn_id and session.last, digest
  if not number then number, known = stored_turn_of(session, request) end
  if number and not same_request(known, digest) then return refuse('reused') end
  if number then return refuse('replay', number, session.first, session.fields) end
  local is_own = session.turn == turn_id and session.held
  if is_own and session.lease_until <= now and not pickup_of(session).released then
    -- Nobody has taken it over: its holder goes on, as with a renewal.
    local pickup_ms = session.busy_until - session.lease_until
    session.lease_until = now + lease_ms
    redis.call('HSET', META, 'until', digits(session.lease_until))
    keep_until(session.expire, session.lease_until + pickup_ms, session.parts)
    redis.call('PEXPIREAT', JOURNAL, digits(redis.call('PEXPIRETIME', META)))
  end
  if is_own and session.lease_until > now then
    redis.call('HSET', META, 'call', waiter_id)
    return {'ok', session.token, session.lease_until, session.lease_until - now, session.new and 1 or 0, session.fields, session.children and 1 or 0}
  end
  if is_own or is_over(session.journals) then return refuse('lost') end
  if max_turns > 0 and session.last - session.first + 1 >= max_turns then return refuse('session_full') end
else
  left = redis.call('HMGET', META, 'journals', 'user_id', 'agent_id', 'new', 'turn', 'interrupted')
  if (left[2] or '') == user and is_over(left[1]) then return refuse('lost') end
  if must_exist then return refuse('missing') end
end

local repeated = session and session.held and request ~= '' and session.request == request
if repeated then
  if not same_request(session.digest, digest) then return refuse('reused') end
  if joins == '1' then return refuse('joined', session.turn) end
  policy = 'wait'
end

local interrupted = nil
if session then interrupted = session.interrupted else interrupted = left[6] end
local free_at, queued, retry_ms = nil, true, 0
if session and session.held then
  if policy == 'interrupt' then
    interrupted = with_interrupted(interrupted, session.token)
    redis.call('HSET', META, 'interrupted', interrupted)
    if session.waiter then waiters().wake(session.waiter) end
  else
    free_at, retry_ms = session.busy_until, ends_in(session)
  end
else
  local first = redis.call('LINDEX', QUEUE, 0) and waiters().first()
  queued = first and true or false
  if queued and first.turn ~= turn_id and policy ~= 'interrupt' then
    free_at = waiters().hand_over(claim_ms)
    retry_ms = session and session.took > 0 and math.min(session.took, free_at - now) or free_at - now
  end
end

if free_at then
  if policy ~= 'wait' or wait_ms <= 0 then return refuse('busy', retry_ms) end
  -- A place in the queue, or the answer that there is none. `free_at` is when asking again may help.
  local queue, place, live, last_deadline = waiters(), nil, 0, now + wait_ms
  for index, text in ipairs(redis.call('LRANGE', QUEUE, 0, -1)) do
    local ticket = queue.ticket_of(text)
    if ticket.turn == turn_id then
      place = index - 1
      ticket.waiter, ticket.deadline = waiter_id, now + wait_ms
      redis.call('LSET', QUEUE, place, queue.text_of(ticket))
    elseif ticket.deadline > now then
      live = live + 1
      last_deadline = math.max(last_deadline, ticket.deadline)
    end
  end
  if not place then
    if live >= tonumber(max_waiters) then return {'queue_full', retry_ms} end
    local ticket = {turn = turn_id, waiter = waiter_id, deadline = now + wait_ms, reserved = 0}
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

local token, lease_until = math.max(now, (session and session.token or 0) + 1), now + lease_ms
-- The session that an interrupted first turn created is removed, but the interrupted caller still learns why.
local created = not session or session.new
local journals = nil
if not session then -- one that turns were to make and did not, whose journals say how they ended
  if left[1] and (left[2] or '') == user and (left[4] or not left[3]) then
    if left[5] then end_unheard(left[5], 'lost', tonumber(keep_ms)) end
    journals = redis.call('HGET', META, 'journals')
  end
elseif session.journals and session.turn ~= turn_id then -- nobody goes on with the turn before any more, whoever ran it
  if session.turn then end_unheard(session.turn, session.held and 'interrupted' or 'lost', tonumber(keep_ms)) end
  journals = redis.call('HGET', META, 'journals')
  redis.call('HDEL', META, 'pickup')
end
local lifetime_end = (created and now or session.created) + lifetime_ms
local expire = math.min(now + idle_ms, lifetime_end)
local now_text, expire_text = digits(now), digits(expire)
if created then
  if journals then
    redis.call('DEL', META, TURNS, REPLAY, PARTS)
    redis.call('HSET', META, 'journals', journals)
  else
    remove()
  end
  redis.call('HSET', META, 'agent_id', agent_id, 'agent_uid', agent_uid, 'created', now_text, 'new', '1')
  if user ~= '' then redis.call('HSET', META, 'user_id', user) end
  if metadata ~= '' then redis.call('HSET', META, 'metadata', metadata) end
  if interrupted then redis.call('HSET', META, 'interrupted', interrupted) end
elseif session.request ~= '' then
  redis.call('HDEL', META, 'request', 'digest')
end
if created or session.idle ~= idle_ms or tonumber(session.cap) ~= lifetime_end then
  redis.call('HSET', META, 'idle', idle_ms, 'cap', digits(lifetime_end))
end
redis.call('HSET', META, 'activity', now_text, 'expire', expire_text, 'token', digits(token), 'turn', turn_id,
           'until', digits(lease_until), 'call', waiter_id)
if request ~= '' then redis.call('HSET', META, 'request', request, 'digest', digest) end
keep_until(expire, lease_until, not created and session.parts)
if created then return {'ok', token, lease_until, tonumber(lease_ms), 1, load().fields, 0} end
local fields, adopted = session.fields, session.uid == '' and agent_uid ~= ''
if adopted then -- it was made without an agent, and is this one's from now on
  redis.call('HSET', META, 'agent_id', agent_id, 'agent_uid', agent_uid)
  fields[1], fields[2] = agent_id, agent_uid
end
fields[ACTIVITY], fields[IDLE], fields[CAP], fields[EXPIRE] = now_text, idle_ms, digits(lifetime_end), expire_text
return {'ok', token, lease_until, tonumber(lease_ms), adopted and 2 or 0, fields, session.children and 1 or 0}
