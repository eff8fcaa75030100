-- Removes a session that meets all given conditions. Replies {sessions, turns} removed, both 0 if none was
-- found or it did not meet them; {-1, 0} if there was none. An unreadable one is an error, or removed if `damaged`.
-- What says how the turn ended that was to make a session is removed under the same conditions, except that it is not idle.
local agent_id, agent_uid, user, idle_ms, claim_ms, damaged = unpack(ARGV)
claim_ms = tonumber(claim_ms)
local readable, session = pcall(load)
if not readable then
  if damaged == '0' then return redis.error_reply('WRONGTYPE the session is damaged') end
  remove()
  return {1, 0}
end
if not session then
  local left = redis.call('HMGET', META, 'agent_uid', 'user_id', 'journals')
  local others = agent_uid ~= '' and left[1] and left[1] ~= agent_uid or user ~= '' and (left[2] or '') ~= user
  if left[3] and (others or idle_ms ~= '') then return {0, 0} end
  remove()
  return {-1, 0}
end
if agent_id ~= '' and session.agent ~= agent_id then return {0, 0} end
if agent_uid ~= '' and session.uid ~= agent_uid then return {0, 0} end
if user ~= '' and session.user ~= user then return {0, 0} end
if idle_ms ~= '' then
  if session.held then return {0, 0} end
  if tonumber(session.activity) > now - tonumber(idle_ms) then return {0, 0} end
end
remove()
hand_over(claim_ms)
return {1, session.last - session.first + 1}
