-- Ends a turn that no gateway runs, or makes its gateway end it.
-- Reply ended
-- Reply cancelling
-- Reply missing
-- Reply busy: ms
local turn_id, user, keep_ms, claim_ms, waiting = unpack(ARGV)
keep_ms, claim_ms = tonumber(keep_ms), tonumber(claim_ms)
local session, record = load(), journal().of(turn_id)
if (redis.call('HGET', META, 'user_id') or '') ~= user then return {'missing'} end
if waiting == '1' then
  if not session or session.done ~= turn_id then return {'missing'} end
  if session.held then return {'busy', ends_in(session)} end
  redis.call('HSET', META, 'cancelled', turn_id)
  return {'ended'}
end
if record and record.ended > 0 then return {'ended'} end
if session and session.turn == turn_id and session.lease_until > now then
  local pickup = pickup_of(session)
  if not pickup.cancelled then
    pickup.cancelled = true
    save_pickup(pickup)
    if session.waiter then waiters().wake(session.waiter) end
  end
  return {'cancelling'}
end
if session and session.turn == turn_id and session.held then
  end_unheard(turn_id, 'cancelled', keep_ms)
  undo(session, claim_ms)
  return {'ended'}
end
if record then
  end_unheard(turn_id, 'lost', keep_ms)
  return {'ended'}
end
if session and session.done == turn_id then return {'ended'} end
return {'missing'}
