-- Gives the event of a dead letter of ours to its group once more. Arguments: prefix, stream of dead letters, letter, group,
-- count of the rest, names and values. Answers 1: it is on its way; 0: there is no such letter; -1: no such group; else since
-- when it is on its way.
local letter, group, count = take(), take(), tonumber(take())
if #redis.call('XRANGE', dead, letter, letter) == 0 then return 0 end
local since = redis.call('HGET', replayed, letter)
if since then return tonumber(since) end
if redis.call('SISMEMBER', p .. 'groups', group) == 0 then return -1 end
redis.call('XADD', p .. 'retry:' .. group, '*', unpack(ARGV, at, at + count - 1))
redis.call('HSET', replayed, letter, now)
return 1
