-- Looks at the consumers of others, and makes what silent ones hold nobody's, as if it had not been delivered before.
-- Arguments: entries at most; ms by which a time may seem to differ from itself; then for each silent consumer: name, and the
-- signs of life that were seen of it last: when it asked, what it held. One that has given another sign since is left alone.
-- Answers for each consumer: name, its signs now, how much is pending for it, how much was adopted now, and how much of that had
-- been deleted. What it held includes what was adopted, until it has nothing left.
local most, same = tonumber(ARGV[5]), tonumber(ARGV[6])
local adopted = p .. 'adopted:' .. group
local silent = {}
for i = 7, #ARGV, 3 do silent[ARGV[i]] = { asked = tonumber(ARGV[i + 1]), held = tonumber(ARGV[i + 2]) } end

local function adopt(consumer)
  local ids, gone = {}, {}
  for i, entry in ipairs(redis.call('XPENDING', stream, group, '-', '+', most, consumer)) do
    ids[i] = entry[1]
    gone[entry[1]] = true
  end
  if #ids == 0 then return 0, 0 end
  for _, id in ipairs(claim('moontide:free', ids, 1, 'JUSTID')) do
    gone[id] = nil
    close_mark(id, false)
  end
  return #ids, lose(gone)
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local found, freed = {}, false
local consumers = redis.pcall('XINFO', 'CONSUMERS', stream, group)
-- A group that is not there is found by whoever reads it.
if consumers.err then return found end
for _, info in ipairs(consumers) do
  local one = by_name(info)
  local name, pending, field = one.name, one.pending, stream .. '/' .. one.name
  if string.sub(name, 1, 9) ~= 'moontide:' then
    local asked, held = now - one.idle, pending + (redis.call('HGET', adopted, field) or 0)
    local before, moved, lost = silent[name], 0, 0
    if before and held == before.held and math.abs(asked - before.asked) <= same then
      if most > 0 then moved, lost = adopt(name) end
      most, pending, freed = most - moved, pending - moved, freed or moved > lost
      if pending == 0 then
        redis.call('HDEL', adopted, field)
        held = 0
      elseif moved > 0 then
        redis.call('HINCRBY', adopted, field, moved)
      end
    end
    found[#found + 1] = { name, asked, held, pending, moved, lost }
  end
end
if freed then redis.call('XADD', p .. 'bell', 'MAXLEN', '~', 1000, '*', 'freed', group) end
return found
