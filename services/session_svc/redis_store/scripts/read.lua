-- Reads a session. 
-- Reply ok: session
-- Reply missing
local user = unpack(ARGV)
local session = load()
if not session or (user ~= '' and session.user ~= user) then return {'missing'} end
return {'ok', session.fields}
