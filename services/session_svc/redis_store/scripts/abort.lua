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
local is_held = holds(session, token, turn_id)
-- Another gateway goes on with it, or is about to: its journal does.
if is_held or not session or session.turn ~= turn_id or not session.pickup then
  end_journal(is_held, turn_id, token, end_event, keep_ms)
end
if not is_held then return 0 end
if session.journals then end_unheard(turn_id, 'lost', keep_ms) end
undo(session, claim_ms)
return 1
