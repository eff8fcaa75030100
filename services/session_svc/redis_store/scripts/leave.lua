-- Takes back whatever one call of BeginTurn got: its place in the queue, or the lease.
local call, claim_ms = ARGV[1], tonumber(ARGV[2])
waiters().give_up('call', call, claim_ms)
local session = load()
if session and session.held and session.call == call then undo(session, claim_ms) end
return 1
