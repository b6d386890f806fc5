-- Removes dead letters. Arguments: prefix, stream of dead letters; then letter and group, for each. Answers how many there
-- were. One of ours that somebody else took away is only counted out.
local removed = 0
while at < #ARGV do
  local letter, group = take(), take()
  if redis.call('XDEL', dead, letter) == 1 then
    removed = removed + 1
    seal(letter)
  end
  if let_go(letter) and redis.call('SISMEMBER', p .. 'groups', group) == 1 then
    redis.call('HINCRBY', p .. 'group:' .. group, 'dead', -1)
  end
end
return removed
