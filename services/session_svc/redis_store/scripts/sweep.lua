-- Removes members of missing sessions from an index, unless they were written again since they were read, or so
-- recently that the session may be about to be created. Replies the number removed.
-- KEYS 1 index. Member and score of each follow the named arguments.
local grace_ms = unpack(ARGV, 1, 1)
local time = redis.call('TIME')
local before = time[1] * 1000 - tonumber(grace_ms)
local swept = 0
for index = 2, #ARGV, 2 do
  local score = tonumber(ARGV[index + 1])
  if score < before and tonumber(redis.call('ZSCORE', KEYS[1], ARGV[index]) or -1) == score then
    swept = swept + redis.call('ZREM', KEYS[1], ARGV[index])
  end
end
return swept
