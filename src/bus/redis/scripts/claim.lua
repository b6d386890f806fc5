#!lua
-- What the scripts that move pending entries share. Arguments: prefix, stream, group, our consumer, and more.
local p, stream, group, me = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local marks = p .. 'marks:' .. group
local marked = redis.call('EXISTS', marks) == 1

-- Deaths under an entry's mark. An open mark is closed; where its process died, that was one more.
local function close_mark(id, died)
  if not marked then return 0 end
  local mark = redis.call('HGET', marks, stream .. '/' .. id)
  if not mark then return 0 end
  local deaths, open = string.match(mark, '^(%d+) (%d)$')
  deaths = tonumber(deaths) or 0
  if open == '1' then
    if died then deaths = deaths + 1 end
    redis.call('HSET', marks, stream .. '/' .. id, deaths .. ' 0')
  end
  return deaths
end

-- Makes the ids, all delivered `count` times by now, `owner`'s, and returns what XCLAIM says.
local function claim(owner, ids, count, how)
  local words = { 'XCLAIM', stream, group, owner, 0 }
  for _, id in ipairs(ids) do words[#words + 1] = id end
  words[#words + 1] = 'RETRYCOUNT'
  words[#words + 1] = count
  words[#words + 1] = how
  return redis.call(unpack(words))
end

-- The ids of pending entries by the count that they are to have.
local function by_count(pending, more)
  local counts = {}
  for _, entry in ipairs(pending) do
    local count = entry[4] + more
    counts[count] = counts[count] or {}
    table.insert(counts[count], entry[1])
  end
  return counts
end

-- Entries that were deleted while they were pending are acknowledged, and lost. Answers how many they are.
local function lose(gone)
  local lost = 0
  for id in pairs(gone) do
    redis.call('XACK', stream, group, id)
    if marked then redis.call('HDEL', marks, stream .. '/' .. id) end
    lost = lost + 1
  end
  if lost > 0 then redis.call('HINCRBY', p .. 'group:' .. group, 'lost', lost) end
  return lost
end

-- Makes pending entries ours and adds { id, count, deaths, fields } of each to `found`.
local function take(pending, died, found)
  for count, ids in pairs(by_count(pending, died and 1 or 0)) do
    local gone = {}
    for _, id in ipairs(ids) do gone[id] = true end
    for _, entry in ipairs(claim(me, ids, count)) do
      if entry and entry[2] then
        gone[entry[1]] = nil
        found[#found + 1] = { entry[1], count, close_mark(entry[1], died), entry[2] }
      end
    end
    lose(gone)
  end
end

-- Those of the entries at argument `from` (id, count) that are still ours, with that count.
local function still_ours(from)
  local ours = {}
  for i = from, #ARGV, 2 do
    local pending = redis.call('XPENDING', stream, group, ARGV[i], ARGV[i], 1, me)[1]
    if pending and pending[4] == tonumber(ARGV[i + 1]) then ours[#ours + 1] = pending end
  end
  return ours
end
