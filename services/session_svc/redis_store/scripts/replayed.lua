-- Finds the stored turn of a request, without taking a lease.
-- Reply replay: number, first, session
-- Reply none
local turn_id, agent_uid, user, request, digest = unpack(ARGV)
local session = load()
if not session or session.user ~= user or session.uid ~= agent_uid then return {'none'} end
local number, known = stored_turn_of(session, request)
if session.done == turn_id then number, known = session.last, digest end
if not number or not same_request(known, digest) then return {'none'} end
return {'replay', number, session.first, session.fields}
