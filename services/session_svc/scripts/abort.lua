-- Releases a lease and stores nothing; without it, does nothing. Replies 1 when the lease was held, else 0.
local token, turn_id, claim_ms = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local session = load()
if not holds(session, token, turn_id) then return 0 end
undo(session, claim_ms)
return 1
