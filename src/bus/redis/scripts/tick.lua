-- A process is here, and serves groups. Arguments: prefix, process, ms between two rounds of upkeep, groups. Answers the
-- time where the next round is the caller's, else 0: whoever serves no group leaves it to those who do.
local process, every = take(), take()
redis.call('HSET', p .. 'seen', process, now)
if at > #ARGV then return 0 end
while at <= #ARGV do
  local hash = p .. 'group:' .. take()
  if redis.call('EXISTS', hash) == 1 then redis.call('HSET', hash, 'seen_at', now) end
end
-- More left than was given: the server's clock was set back.
local left = redis.call('PTTL', p .. 'upkeep')
if left >= 0 and left <= tonumber(every) then return 0 end
redis.call('SET', p .. 'upkeep', process, 'PX', every)
for _, other in ipairs(redis.call('HKEYS', p .. 'seen')) do
  if redis.call('HEXISTS', p .. 'beats', other) == 0 then redis.call('HDEL', p .. 'seen', other) end
end
return now
