#!lua
-- Removes what is kept of dead processes. Arguments: prefix; then process and the counter at which it is dead, for each.
-- One whose counter has moved since then lives. Everybody is told: some may never have seen it, and it may have left
-- something that only they have a use for.
local p = ARGV[1]
for i = 2, #ARGV, 2 do
  local process = ARGV[i]
  if redis.call('HGET', p .. 'beats', process) == ARGV[i + 1] then
    redis.call('HDEL', p .. 'beats', process)
    redis.call('HDEL', p .. 'processes', process)
    redis.call('DEL', p .. 'receipts:' .. process)
    redis.call('XADD', p .. 'bell', 'MAXLEN', '~', 1000, '*', 'died', process)
  end
end
return 1
