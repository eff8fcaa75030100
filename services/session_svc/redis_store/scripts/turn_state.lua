-- Returns the state of a turn: 1 queued, 2 running, 3 ended; how many gateways have run it; the first entry of its journal,
-- if it has one, and its last once it has ended. `held`: whether a gateway runs it, or may be about to. `request`: what it
-- can be continued from, if `with_request`.
-- Reply ok: state, attempt, held, entries, request
-- Reply missing

-- The gateway of a turn that lost its session has had time to report its end: as long as watches wait for it.
local QUIET_MS = 60000
local function quiet(record) return now - tonumber(string.match(record.last, '^%d+')) > QUIET_MS end

local turn_id, user, with_request = unpack(ARGV)
local session, record = load(), journal().of(turn_id)
if (redis.call('HGET', META, 'user_id') or '') ~= user then return {'missing'} end
local running = session and session.turn == turn_id and session.held
if not record and not running then return {'missing'} end
local pickup, state, entries, request = session and pickup_of(session) or {attempt = 1}, 2, {}, ''
if record then
  for _, entry in ipairs(redis.call('XRANGE', JOURNAL, record.first, '+', 'COUNT', 2)) do
    if with_request == '1' and entry[2][2] == '?' .. turn_id then request = entry[2][4] end
    if entry[2][2] == turn_id then
      entries[1] = {entry[1], entry[2]}
      break
    end
  end
  if record.ended > 0 then
    state = 3
    local last = redis.call('XRANGE', JOURNAL, record.last, record.last)[1]
    if last then entries[#entries + 1] = {last[1], last[2]} end
  elseif not running and (not session or session.turn ~= turn_id and quiet(record)) then
    state = 3
  elseif pickup.attempt == 0 then
    state = 1
  end
end
return {'ok', state, running and pickup.attempt or 1, running and 1 or 0, entries, request}
