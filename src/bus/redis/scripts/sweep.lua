-- One step of a walk over the letters of ours that lie in the stream of dead letters. Arguments: prefix, that stream, where the
-- walk is, how many at most. Answers where it goes on, and of each letter its group, 1 where it is still there, and since
-- when it is on its way again ('': it is not).
local page = redis.call('HSCAN', ours, take(), 'COUNT', take())
local found = { page[1] }
for i = 1, #page[2], 2 do
  local letter = page[2][i]
  local stream, _, group = of_ours(letter)
  if stream == dead then
    found[#found + 1] = { letter, group, is_there(letter) and 1 or 0, redis.call('HGET', replayed, letter) or '' }
  end
end
return found
