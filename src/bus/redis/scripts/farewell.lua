#!lua
-- A process ends in order. Arguments: prefix, process, consumer; then stream and group, for each place in which it has a
-- consumer. One that still has something pending stays, since deleting it would lose that for good, and everybody is told.
local p, process, consumer = ARGV[1], ARGV[2], ARGV[3]
local left = false
for i = 4, #ARGV, 2 do
  local pending = redis.pcall('XPENDING', ARGV[i], ARGV[i + 1], '-', '+', 1, consumer)
  if not pending.err and #pending == 0 then
    redis.call('XGROUP', 'DELCONSUMER', ARGV[i], ARGV[i + 1], consumer)
  elseif not pending.err then
    left = true
  end
end
redis.call('HDEL', p .. 'beats', process)
redis.call('HDEL', p .. 'processes', process)
redis.call('DEL', p .. 'receipts:' .. process)
if left then redis.call('XADD', p .. 'bell', 'MAXLEN', '~', 1000, '*', 'died', process) end
return 1
