-- Releases a lease without storing a turn; does nothing without the lease. Replies 1 if the lease was held, else 0.
-- Token 0 means the turn's token, whatever it is: its holder never got BeginTurn's reply, and may still be queued.
local token, turn_id, claim_ms, end_event, keep_ms = unpack(ARGV)
token, claim_ms = tonumber(token), tonumber(claim_ms)
local session = load()
if token == 0 then
  waiters().give_up('turn', turn_id, claim_ms)
  session = load()
  if session then token = session.token end
end
local is_held = holds(session, token, turn_id)
-- Another gateway continues it, or is about to, and with it the journal.
if is_held or not session or session.turn ~= turn_id or not session.pickup then
  end_journal(is_held, turn_id, token, end_event, keep_ms)
end
if not is_held then return 0 end
if session.journals then end_unheard(turn_id, 'lost', keep_ms) end
undo(session, claim_ms)
return 1
