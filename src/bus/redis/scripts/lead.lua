#!lua
-- Asks for leads. Arguments: prefix, process, channel of markers; then per lead its name, who had it when that was looked up,
-- the counter at which that one is dead ('': as far as is known it lives), and 1 where a marker is wanted. Answers for each: 1:
-- ours; 0: somebody else's. An owner that has no counter any more is gone.
local p, me, channel = ARGV[1], ARGV[2], ARGV[3]
local answers = {}
for i = 4, #ARGV, 4 do
  local name, seen, dead, wanted = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local owner = redis.call('HGET', p .. 'lead', name)
  if owner and owner ~= me then
    local beat = redis.call('HGET', p .. 'beats', owner)
    if not beat or (owner == seen and dead ~= '' and beat == dead) then owner = nil end
  end
  if not owner then
    redis.call('HSET', p .. 'lead', name, me)
    owner = me
    wanted = '1'
  end
  if owner == me and wanted == '1' then redis.call('PUBLISH', channel, name) end
  answers[#answers + 1] = owner == me and 1 or 0
end
return answers
