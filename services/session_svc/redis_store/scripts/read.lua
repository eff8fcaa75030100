-- Reads a session. Replies {'ok', session} | {'missing'}.
local user = ARGV[1]
local session = load()
if not session or (user ~= '' and session.user ~= user) then return {'missing'} end
return {'ok', session.fields}
