-- Trims a stream as far as nobody needs it, moves the marks of its groups up, and counts what they lost. One to which only
-- others publish is theirs to trim. Arguments: prefix, stream, '1' where the configuration says what it keeps, ms before which entries may go ('': none by age), entries that stay ('': any number), ms before
-- which a group that nobody serves is forgotten, how many entries at most. Answers stream, group and count of what was lost.
local stream, ours_to_trim, oldest, length, forgotten, most = take(), take() == '1', take(), take(), tonumber(take()), take()
if redis.call('TYPE', stream).ok ~= 'stream' then return {} end
if not ours_to_trim and redis.call('SISMEMBER', p .. 'published', stream) == 0 then
  oldest, length = '', ''
end

-- Whether a group of ours keeps nothing any more: nobody serves it, or it does not read the stream.
local function is_forgotten(hash)
  local seen = redis.call('HMGET', hash, 'seen_at', 'unused:' .. stream)
  return (tonumber(seen[1]) or now) < forgotten or (seen[2] and tonumber(seen[2]) < forgotten)
end

local function just_after(id)
  local ms, seq = id_parts(id)
  if #seq < 16 then return ms .. '-' .. string.format('%.0f', seq + 1) end
  return string.format('%.0f', ms + 1) .. '-0'
end

-- The first entry that somebody needs; nil: nobody needs any.
local needed
for _, one in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  local found = by_name(one)
  local name, position = found.name, found['last-delivered-id']
  local hash = p .. 'group:' .. name
  local from, mark = just_after(position), position
  if found.pending > 0 then
    from = redis.call('XPENDING', stream, name)[2]
    mark = just_before(from)
  end
  local own = redis.call('SISMEMBER', p .. 'groups', name) == 1
  if own then
    local before = redis.call('HGET', hash, 'mark:' .. stream)
    if before and lies_before(before, mark) then redis.call('HSET', hash, 'mark:' .. stream, mark) end
  end
  if not (own and is_forgotten(hash)) and (not needed or lies_before(from, needed)) then needed = from end
end

-- Removes entries before `id`, at most `count`: whole blocks while there are any, then one by one.
local function cut(id, count)
  if needed and lies_before(needed, id) then id = needed end
  if redis.call('XTRIM', stream, 'MINID', '~', id, 'LIMIT', count) > 0 then return end
  local few = redis.call('XRANGE', stream, '-', '+', 'COUNT', math.min(count, 100) + 1)
  local last = few[math.min(count, 100) + 1]
  if last and lies_before(last[1], id) then id = last[1] end
  redis.call('XTRIM', stream, 'MINID', '=', id)
end

if oldest ~= '' then
  local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  if first and lies_before(first[1], oldest) and (not needed or lies_before(first[1], needed)) then
    cut(oldest, tonumber(most))
  end
end
local excess = length ~= '' and redis.call('XLEN', stream) - length or 0
if excess > 0 then cut('18446744073709551615-18446744073709551615', math.min(excess, tonumber(most))) end

-- Whoever trimmed.
local lost = {}
local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
count_lost(stream, first and first[1], lost)
return lost
