-- Hands everything of a group over to another, which is created where it is missing. Arguments: prefix, old and new group.
-- Answers streams, entries that the new group had skipped, retries and delayed work, dead letters.
local from, to = take(), take()
local old, new = p .. 'group:' .. from, p .. 'group:' .. to
local old_retry, new_retry = p .. 'retry:' .. from, p .. 'retry:' .. to

if redis.call('SISMEMBER', p .. 'groups', from) == 0 then
  return redis.error_reply('REFUSED there is no group ' .. from .. '; `moontide groups list` shows those that there are')
end

local function copy(field, value)
  if value then redis.call('HSETNX', new, field, value) end
end

-- Makes entries pending for the new group, nobody's, delivered as often as they were.
local function give(stream, ids, count)
  for first = 1, #ids, 500 do
    local words = { 'XCLAIM', stream, to, 'moontide:free', 0 }
    for i = first, math.min(first + 499, #ids) do words[#words + 1] = ids[i] end
    for _, word in ipairs({ 'FORCE', 'RETRYCOUNT', count, 'JUSTID' }) do words[#words + 1] = word end
    redis.call(unpack(words))
  end
end

-- What the old group had received and not settled. What the new one received by itself is its own.
local function give_pending(stream, began, reached)
  local after = '-'
  repeat
    local page = redis.call('XPENDING', stream, from, after, '+', 500)
    local counts = {}
    for _, entry in ipairs(page) do
      if not (lies_before(began, entry[1]) and not lies_before(reached, entry[1])) then
        counts[entry[4]] = counts[entry[4]] or {}
        table.insert(counts[entry[4]], entry[1])
      end
      after = '(' .. entry[1]
    end
    for count, ids in pairs(counts) do give(stream, ids, count) end
  until #page < 500
end

-- What the new group had skipped, and the old one had not reached.
local function give_skipped(stream, position, began)
  local given, after = 0, '(' .. position
  repeat
    local page = redis.call('XRANGE', stream, after, began, 'COUNT', 500)
    local ids = {}
    for i, entry in ipairs(page) do ids[i] = entry[1] end
    if #ids > 0 then
      give(stream, ids, 1)
      given, after = given + #ids, '(' .. ids[#ids]
    end
  until #page < 500
  return given
end

local function hand_stream(stream)
  local theirs, ours = standing(stream, from), standing(stream, to)
  if not theirs then return 0 end
  local position = theirs['last-delivered-id']
  local mark = redis.call('HGET', old, 'mark:' .. stream) or position
  if not ours then
    redis.call('XGROUP', 'CREATE', stream, to, position)
    redis.call('HSET', new, 'began:' .. stream, redis.call('HGET', old, 'began:' .. stream), 'mark:' .. stream, mark)
    give_pending(stream, '0-0', '0-0')
    return 0
  end
  local reached = ours['last-delivered-id']
  local began = redis.call('HGET', new, 'began:' .. stream) or reached
  give_pending(stream, began, reached)
  local skipped = lies_before(position, began) and give_skipped(stream, position, began) or 0
  if lies_before(reached, position) then redis.call('XGROUP', 'SETID', stream, to, position) end
  local theirs_began = redis.call('HGET', old, 'began:' .. stream) or began
  if lies_before(theirs_began, began) then redis.call('HSET', new, 'began:' .. stream, theirs_began) end
  local our_mark = redis.call('HGET', new, 'mark:' .. stream) or reached
  if lies_before(mark, our_mark) then redis.call('HSET', new, 'mark:' .. stream, mark) end
  return skipped
end

local function hand_retries()
  local moved = each_delayed(old_retry, function(member, due, id)
    redis.call('ZREM', p .. 'due', member)
    redis.call('ZADD', p .. 'due', due, id .. ' ' .. new_retry)
  end)
  if moved > 0 then redis.call('HINCRBY', p .. 'delayed', new_retry, moved) end
  local after = '-'
  repeat
    local page = redis.call('XRANGE', old_retry, after, '+', 'COUNT', 500)
    for _, entry in ipairs(page) do
      redis.call('XADD', new_retry, '*', unpack(entry[2]))
      moved, after = moved + 1, '(' .. entry[1]
    end
  until #page < 500
  return moved
end

copy('handler', redis.call('HGET', old, 'handler'))
copy('selection', redis.call('HGET', old, 'selection'))
if redis.pcall('XPENDING', new_retry, to).err then redis.call('XGROUP', 'CREATE', new_retry, to, '0', 'MKSTREAM') end

local streams, skipped = streams_of(old), 0
for _, stream in ipairs(streams) do skipped = skipped + hand_stream(stream) end
local delayed = hand_retries()
local marks = redis.call('HGETALL', p .. 'marks:' .. from)
for i = 1, #marks, 2 do redis.call('HSETNX', p .. 'marks:' .. to, marks[i], marks[i + 1]) end
local dead, lost = redis.call('HGET', old, 'dead') or 0, redis.call('HGET', old, 'lost') or 0
redis.call('HINCRBY', new, 'dead', dead)
redis.call('HINCRBY', new, 'lost', lost)
redis.call('HSET', new, 'seen_at', now)
letters_go(from, to)
remove(from)
redis.call('SADD', p .. 'groups', to)
ring('group', to)
return { #streams, skipped, delayed, tonumber(dead) }
