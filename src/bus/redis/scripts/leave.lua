-- What handing a group over and forgetting it share: how a group leaves.

local function streams_of(hash)
  local found = {}
  for _, field in ipairs(redis.call('HKEYS', hash)) do
    if string.sub(field, 1, 6) == 'began:' then found[#found + 1] = string.sub(field, 7) end
  end
  table.sort(found)
  return found
end

-- From the newest letter on, what `from` gave up is another group's ('': nobody's).
local function letters_go(from, to)
  local newest = redis.call('XREVRANGE', dead, '+', '-', 'COUNT', 1)[1]
  if not newest then return end
  local before = redis.call('HGET', p .. 'moved', from)
  local line = newest[1] .. ' ' .. to
  redis.call('HSET', p .. 'moved', from, before and before .. '\n' .. line or line)
end

-- Removes a group and all that is its own.
local function remove(group)
  local hash = p .. 'group:' .. group
  for _, stream in ipairs(streams_of(hash)) do redis.pcall('XGROUP', 'DESTROY', stream, group) end
  redis.call('DEL', hash, p .. 'marks:' .. group, p .. 'retry:' .. group, p .. 'adopted:' .. group,
    p .. 'named:' .. group)
  redis.call('HDEL', p .. 'delayed', p .. 'retry:' .. group)
  redis.call('SREM', p .. 'groups', group)
end
