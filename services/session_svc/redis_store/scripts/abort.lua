-- Releases a lease and stores nothing; without it, does nothing. Replies 1 when the lease was held, else 0.
-- Token 0 stands for whatever token the turn has: its holder never got BeginTurn's answer, and may be queued still.
local token, turn_id, claim_ms, end_event, keep_ms = unpack(ARGV)
token, claim_ms = tonumber(token), tonumber(claim_ms)
local session = load()
if token == 0 then
  waiters().give_up('turn', turn_id, claim_ms)
  session = load()
  if session then token = session.token end
end
end_journal(turn_id, token, end_event, keep_ms)
if not holds(session, token, turn_id) then return 0 end
undo(session, claim_ms)
return 1
