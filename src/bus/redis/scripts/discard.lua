-- Removes dead letters. Arguments: prefix; then letter and group, for each. Answers how many there were.
local removed = 0
while at < #ARGV do
  local letter, group = take(), take()
  if redis.call('XDEL', p .. 'dead', letter) == 1 then
    removed = removed + 1
    redis.call('HDEL', p .. 'dead:replayed', letter)
    if redis.call('SISMEMBER', p .. 'groups', group) == 1 then
      redis.call('HINCRBY', p .. 'group:' .. group, 'dead', -1)
    end
  end
end
return removed
