-- Stores, removes and returns the push configurations of a turn: META's `push`, a packed list of turn, id and content,
-- oldest first. If the turn leaves no session behind, it lives as long as the turn's journal (`undo`).
-- Reply ok: configs
-- Reply missing
-- Reply full
local turn_id, user, action, id, content, max_of_turn, max_of_session = unpack(ARGV)
local kept = redis.call('HMGET', META, 'user_id', 'push', 'agent_id', 'journals')
if not kept[3] and not kept[4] or (kept[1] or '') ~= user then return {'missing'} end
local configs, of_turn, found = kept[2] and cmsgpack.unpack(kept[2]) or {}, {}, nil
for index, one in ipairs(configs) do
  if one[1] == turn_id then
    of_turn[#of_turn + 1] = one
    if one[2] == id then found = index end
  end
end
if action == 'put' then
  if found then
    configs[found][3] = content
  else
    if #of_turn >= tonumber(max_of_turn) then return {'full'} end
    while #configs >= tonumber(max_of_session) do table.remove(configs, 1) end
    configs[#configs + 1] = {turn_id, id, content}
  end
elseif action == 'delete' and found then
  table.remove(configs, found)
end
if action ~= 'list' then
  if #configs > 0 then redis.call('HSET', META, 'push', cmsgpack.pack(configs)) else redis.call('HDEL', META, 'push') end
  return {'ok', {}}
end
local flat = {}
for _, one in ipairs(of_turn) do flat[#flat + 1], flat[#flat + 2] = one[2], one[3] end
return {'ok', flat}
