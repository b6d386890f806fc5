-- Hands a group over to another in small steps, each of which can be done again. Arguments: prefix, stream of dead letters,
-- old and new group, how many entries at most, the step and what it is about.
local from, to, most, step, about = take(), take(), tonumber(take()), take(), take()
local old, new = p .. 'group:' .. from, p .. 'group:' .. to
local old_retry, new_retry = p .. 'retry:' .. from, p .. 'retry:' .. to
local steps = {}

local function copy(field)
  local value = redis.call('HGET', old, field)
  if value then redis.call('HSETNX', new, field, value) end
end

-- From here to the last step nobody can open either group. Answers the streams that are to be handed over.
function steps.begin()
  if redis.call('SISMEMBER', p .. 'groups', from) == 0 then
    return refused('there is no group ' .. from .. '; `moontide groups list` shows those that there are')
  end
  for _, hash in ipairs({ old, new }) do
    local why = being_moved(hash, from .. ' ' .. to)
    if why then return refused(why) end
  end
  copy('handler')
  copy('selection')
  -- Nobody puts the old group on streams that it has left.
  redis.call('HDEL', old, 'selection')
  for _, hash in ipairs({ old, new }) do redis.call('HSET', hash, 'moving', from .. ' ' .. to) end
  redis.call('HSETNX', new, 'seen_at', now)
  redis.call('SADD', p .. 'groups', to)
  if redis.pcall('XPENDING', new_retry, to).err then redis.call('XGROUP', 'CREATE', new_retry, to, '0', 'MKSTREAM') end
  return streams_of(old)
end

-- Makes entries pending for the new group, nobody's, delivered so often.
local function give(stream, ids, count)
  local words = { 'XCLAIM', stream, to, 'moontide:free', 0 }
  for _, id in ipairs(ids) do words[#words + 1] = id end
  for _, word in ipairs({ 'FORCE', 'RETRYCOUNT', count, 'JUSTID' }) do words[#words + 1] = word end
  redis.call(unpack(words))
end

-- What the new group has of itself on the stream, and the old one's mark, as they were at first: after which entry it began,
-- and up to which it received.
local function first_found(stream, position)
  local ours = standing(stream, to)
  local known = redis.call('HGET', old, 'handed:' .. stream)
  if not known then
    local began, reached = '0-0', '0-0'
    if ours then
      reached = ours['last-delivered-id']
      began = redis.call('HGET', new, 'began:' .. stream) or reached
    end
    known = began .. ' ' .. reached .. ' ' .. (redis.call('HGET', old, 'mark:' .. stream) or position)
    redis.call('HSET', old, 'handed:' .. stream, known)
  end
  local began, reached, mark = string.match(known, '^(%S+) (%S+) (%S+)$')
  if not ours then
    redis.call('XGROUP', 'CREATE', stream, to, position)
    redis.call('HSET', new, 'began:' .. stream, redis.call('HGET', old, 'began:' .. stream), 'mark:' .. stream, mark)
  end
  return began, reached, mark
end

-- Some of what the old group had received and not settled. What the new one received by itself is its own. How often others
-- had an entry says nothing about deaths of ours.
local function give_pending(stream, began, reached)
  local page, ids, by_count = redis.call('XPENDING', stream, from, '-', '+', most), {}, {}
  for i, entry in ipairs(page) do
    ids[i] = entry[1]
    if not (lies_before(began, entry[1]) and not lies_before(reached, entry[1])) then
      local count = string.sub(entry[2], 1, 9) == 'moontide:' and entry[4] or 1
      by_count[count] = by_count[count] or {}
      table.insert(by_count[count], entry[1])
    end
  end
  for count, some in pairs(by_count) do give(stream, some, count) end
  if #ids > 0 then redis.call('XACK', stream, from, unpack(ids)) end
  return #ids
end

-- Some of what the new group had skipped, and the old one had not reached: it reaches it now.
local function give_skipped(stream, position, began)
  local ids = {}
  for i, entry in ipairs(redis.call('XRANGE', stream, '(' .. position, began, 'COUNT', most)) do ids[i] = entry[1] end
  if #ids > 0 then
    give(stream, ids, 1)
    redis.call('XGROUP', 'SETID', stream, from, ids[#ids])
  end
  return #ids
end

-- The old group is done with the stream: the new one stands where both have been.
local function leave(stream, position, began, mark)
  if lies_before(standing(stream, to)['last-delivered-id'], position) then redis.call('XGROUP', 'SETID', stream, to, position) end
  local their_began = redis.call('HGET', old, 'began:' .. stream) or began
  if lies_before(their_began, began) then redis.call('HSET', new, 'began:' .. stream, their_began) end
  local our_mark = redis.call('HGET', new, 'mark:' .. stream) or position
  if lies_before(mark, our_mark) then redis.call('HSET', new, 'mark:' .. stream, mark) end
  redis.call('XGROUP', 'DESTROY', stream, from)
end

-- Answers whether the stream is handed over, and how much of it the new group had skipped.
function steps.stream()
  local theirs, skipped = standing(about, from), 0
  if theirs then
    local position = theirs['last-delivered-id']
    local began, reached, mark = first_found(about, position)
    if give_pending(about, began, reached) == most then return { 0, 0 } end
    if lies_before(position, began) then
      skipped = give_skipped(about, position, began)
      if skipped == most then return { 0, skipped } end
    end
    leave(about, position, began, mark)
  end
  redis.call('HDEL', old, 'began:' .. about, 'mark:' .. about, 'unused:' .. about, 'handed:' .. about)
  return { 1, skipped }
end

-- Delayed work that one step of a walk finds. Answers where the walk goes on, and how much it was.
function steps.delayed()
  -- Whoever still has an entry in hand cannot delay it any more.
  redis.pcall('XGROUP', 'DESTROY', old_retry, from)
  local page, moved = redis.call('ZSCAN', due, about, 'COUNT', most), 0
  for i = 1, #page[2], 2 do
    local id, target = string.match(page[2][i], '^(%S+) (.*)$')
    if target == old_retry then
      redis.call('ZREM', due, page[2][i])
      redis.call('ZADD', due, page[2][i + 1], id .. ' ' .. new_retry)
      moved = moved + 1
    end
  end
  if moved > 0 then
    redis.call('HINCRBY', delayed, old_retry, -moved)
    redis.call('HINCRBY', delayed, new_retry, moved)
  end
  return { page[1], moved }
end

-- Some of what the old group can take back, and then of the retries and replays on their way. Answers whether there are no more, and how many they were.
function steps.retries()
  local mine = redis.call('ZRANGE', names(from), 0, most - 1)
  for _, member in ipairs(mine) do
    local length, rest = string.match(member, '^(%d+):(.*)$')
    redis.call('ZADD', names(to), 0, member)
    redis.call('HSET', owners, string.match(string.sub(rest, length + 2), '^%S+'), to .. ' ' .. member)
    redis.call('ZREM', names(from), member)
  end
  if #mine == most then return { 0, 0 } end
  local page, ids = redis.call('XRANGE', old_retry, '-', '+', 'COUNT', most), {}
  for i, entry in ipairs(page) do
    ids[i] = entry[1]
    redis.call('XADD', new_retry, '*', unpack(entry[2]))
  end
  if #ids > 0 then redis.call('XDEL', old_retry, unpack(ids)) end
  return { #ids < most and 1 or 0, #ids }
end

-- The rest, which is little. Answers how many dead letters there are.
function steps.finish()
  local marks = redis.call('HGETALL', p .. 'marks:' .. from)
  for i = 1, #marks, 2 do redis.call('HSETNX', p .. 'marks:' .. to, marks[i], marks[i + 1]) end
  local dead, lost = redis.call('HGET', old, 'dead') or 0, redis.call('HGET', old, 'lost') or 0
  redis.call('HINCRBY', new, 'dead', dead)
  redis.call('HINCRBY', new, 'lost', lost)
  redis.call('HSET', new, 'seen_at', now)
  redis.call('HDEL', new, 'moving')
  letters_go(from, to)
  remove(from)
  ring('group', to)
  return { 1, tonumber(dead) }
end

return steps[step]()
