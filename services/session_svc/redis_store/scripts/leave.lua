-- Releases what a call of BeginTurn got: its place in the queue, or the lease, unless the turn had that before: one
-- that was taken over calls BeginTurn again.
local waiter_id, claim_ms = unpack(ARGV)
claim_ms = tonumber(claim_ms)
waiters().give_up('waiter', waiter_id, claim_ms)
local session = load()
local had = session and session.pickup and pickup_of(session).ms > 0
if session and session.held and session.waiter == waiter_id and not had then undo(session, claim_ms) end
return 1
