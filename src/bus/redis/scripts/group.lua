-- Opens a group on streams; repeated, or done by several processes at once, it does no more than once.
-- Arguments: prefix, group, handler and selection ('' where they stay), the last id before its beginning ('$': the newest),
-- '1' where these are all of its streams, count of streams; per stream its name and '1' where it is read from its first entry.
-- Answers, per stream on which it is new: name, last id before its beginning, newest id, length.
local group, handler, selection, start, all = take(), take(), take(), take(), take()
local hash, count = p .. 'group:' .. group, tonumber(take())
local began, used = {}, {}

local function newest(stream)
  if redis.call('EXISTS', stream) == 0 then return '0-0', 0 end
  local info = by_name(redis.call('XINFO', 'STREAM', stream))
  return info['last-generated-id'], info.length
end

-- A group of others, or one that was put there for us while we were away, is taken over as it stands.
local function take_over(stream, first)
  local found = standing(stream, group)
  local position = found['last-delivered-id']
  local mark = position
  if found.pending > 0 then mark = just_before(redis.call('XPENDING', stream, group)[2]) end
  redis.call('HSET', hash, 'began:' .. stream, position, 'mark:' .. stream, mark)
  if first and position == '0-0' then
    local last, length = newest(stream)
    began[#began + 1] = { stream, position, last, length }
  end
end

local function create(stream, first)
  local last, length = newest(stream)
  local before = redis.call('HGET', hash, 'began:' .. stream)
  local position = before and redis.call('HGET', hash, 'mark:' .. stream) or '0-0'
  if not before and not first then
    position = start
  end
  -- A mark beyond the newest entry is that of another stream, which had the same name.
  if position == '$' or lies_before(last, position) then position = before and '0-0' or last end
  redis.call('XGROUP', 'CREATE', stream, group, position, 'MKSTREAM')
  if before then return end
  redis.call('HSET', hash, 'began:' .. stream, position, 'mark:' .. stream, position)
  began[#began + 1] = { stream, position, last, length }
end

local first_stream = at
local retry = p .. 'retry:' .. group
local why = unfit(retry, 'stream') or unfit(hash, 'hash') or being_moved(hash)
for i = 1, count do why = why or unfit(ARGV[first_stream + 2 * i - 2], 'stream') end
if why then return refused(why) end

local function missing(stream)
  local found = redis.pcall('XPENDING', stream, group)
  return found.err ~= nil
end

if missing(retry) then redis.call('XGROUP', 'CREATE', retry, group, '0', 'MKSTREAM') end
for _ = 1, count do
  local stream, first = take(), take() == '1'
  used['began:' .. stream] = true
  if missing(stream) then
    create(stream, first)
  elseif redis.call('HEXISTS', hash, 'began:' .. stream) == 0 then
    take_over(stream, first)
  end
  redis.call('HDEL', hash, 'unused:' .. stream)
  if redis.call('SADD', p .. 'streams', stream) == 1 then ring('stream', stream) end
end
if all == '1' then
  for _, field in ipairs(redis.call('HKEYS', hash)) do
    if string.sub(field, 1, 6) == 'began:' and not used[field] then
      redis.call('HSETNX', hash, 'unused:' .. string.sub(field, 7), now)
    end
  end
end
if handler ~= '' then redis.call('HSET', hash, 'handler', handler, 'selection', selection) end
redis.call('HSET', hash, 'seen_at', now)
if redis.call('SADD', p .. 'groups', group) == 1 then ring('group', group) end
return began
