-- Records a dependent session of this one. Returns 0 if this one does not exist.
if not load() then return 0 end
redis.call('HSET', META, 'children', 1)
return 1
