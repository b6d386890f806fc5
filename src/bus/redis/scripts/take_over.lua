-- Takes over at most `max` entries. Arguments: max; then for each owner: consumer, its process ('': what was given back),
-- and the counter at which it is dead ('': it has none). One that has no counter any more
-- is dead whatever was seen of it. Answers whether more is there, and what was taken.
local max = tonumber(ARGV[5])
local found, more = {}, 0
for i = 6, #ARGV, 3 do
  local owner, process, beat = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local died = process ~= ''
  local counter = died and redis.call('HGET', p .. 'beats', process)
  local lives = counter and counter ~= beat
  if not lives and owner ~= me then
    if max > 0 then
      local pending = redis.call('XPENDING', stream, group, '-', '+', max, owner)
      max = max - #pending
      take(pending, died, found)
    end
    if #redis.call('XPENDING', stream, group, '-', '+', 1, owner) > 0 then
      more = 1
    elseif died then
      redis.call('XGROUP', 'DELCONSUMER', stream, group, owner)
    end
  end
end
return { more, found }
