#!lua
-- Records what a step came to, if its delivery is still ours; whoever records first wins. Arguments: prefix, stream, group, our
-- consumer, entry, times delivered, 1 where the stream stands for a channel, key of the event's steps, name, result, for how
-- many milliseconds they are kept. Answers 1: recorded; the result that it had; 0: not ours; -1: the group vanished.
local p, stream, group, me, entry, times, heard = unpack(ARGV, 1, 7)
local steps, name, result, kept = unpack(ARGV, 8, 11)
if heard == '1' then
  local leader = redis.call('HGET', p .. 'lead', string.sub(stream, #p + 9) .. ' ' .. group)
  if not leader or 'moontide:' .. leader ~= me then return 0 end
else
  local pending = redis.pcall('XPENDING', stream, group, entry, entry, 1, me)
  if pending.err then
    if string.find(pending.err, '^NOGROUP') or string.find(pending.err, '^WRONGTYPE') then return -1 end
    return redis.error_reply(pending.err)
  end
  if not pending[1] or pending[1][4] ~= tonumber(times) then return 0 end
end
local known = redis.call('HGET', steps, name)
if known then return known end
-- Those that stay for ever are a dead letter's.
local stays = redis.call('PTTL', steps) == -1
redis.call('HSET', steps, name, result)
if not stays then redis.call('PEXPIRE', steps, kept) end
return 1
