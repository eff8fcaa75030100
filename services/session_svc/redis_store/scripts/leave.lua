-- Releases whatever one call of BeginTurn got: its place in the queue, or the lease.
local waiter_id, claim_ms = unpack(ARGV)
claim_ms = tonumber(claim_ms)
waiters().give_up('waiter', waiter_id, claim_ms)
local session = load()
if session and session.held and session.waiter == waiter_id then undo(session, claim_ms) end
return 1
