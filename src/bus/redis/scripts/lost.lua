-- What groups lost because others trimmed; needs `ids.lua`, and the prefix as `p`.
-- What lies before the first entry of the stream and was not received by a group of ours is lost. The group goes on at that
-- entry, so that it is counted once. Adds stream, group and count to `lost`.
local function count_lost(stream, first, lost)
  local groups = redis.pcall('XINFO', 'GROUPS', stream)
  if groups.err then return end
  local there = redis.call('XLEN', stream)
  for _, one in ipairs(groups) do
    local found = by_name(one)
    local behind = not first or lies_before(found['last-delivered-id'], first)
    if behind and found.lag and found.lag > there and redis.call('SISMEMBER', p .. 'groups', found.name) == 1 then
      local info = by_name(redis.call('XINFO', 'STREAM', stream))
      local position = first and just_before(first) or info['last-generated-id']
      redis.call('XGROUP', 'SETID', stream, found.name, position, 'ENTRIESREAD', info['entries-added'] - there)
      redis.call('HINCRBY', p .. 'group:' .. found.name, 'lost', found.lag - there)
      lost[#lost + 1] = stream
      lost[#lost + 1] = found.name
      lost[#lost + 1] = found.lag - there
    end
  end
end
