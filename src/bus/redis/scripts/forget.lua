-- Forgets a group; its dead letters stay, without a group. Arguments: prefix, stream of dead letters, group. Answers 0 where
-- there is none.
local group = take()
if redis.call('SISMEMBER', p .. 'groups', group) == 0 then return 0 end
local why = being_moved(p .. 'group:' .. group)
if why then return refused(why) end
local waiting, from = {}, 0
repeat
  local page = redis.call('ZRANGE', due, from, from + 999)
  for _, member in ipairs(page) do
    local id, target = string.match(member, '^(%S+) (.*)$')
    if target == p .. 'retry:' .. group then waiting[member] = id end
  end
  from = from + 1000
until #page == 0
for member, id in pairs(waiting) do
  redis.call('ZREM', due, member)
  redis.call('XDEL', parked, id)
end
-- Replays that were on their way are gone.
for _, letter in ipairs(redis.call('HKEYS', replayed)) do
  local _, _, whose = of_ours(letter)
  if not whose or whose == group then redis.call('HDEL', replayed, letter) end
end
letters_go(group, '')
remove(group)
return 1
