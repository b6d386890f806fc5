-- Writes the mark "runs alone" of an entry. Arguments: id, count. Answers 1 where it is still ours.
local ours = still_ours(5)[1]
if not ours then return 0 end
local field = stream .. '/' .. ours[1]
local deaths = string.match(redis.call('HGET', marks, field) or '0', '^%d+')
redis.call('HSET', marks, field, deaths .. ' 1')
return 1
