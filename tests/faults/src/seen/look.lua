-- All that the server holds of numbered events, of one moment. Arguments: prefix, prefix of state.
-- Answers rows of texts; the first of each says what it is.
local p, state = ARGV[1], ARGV[2]
local seen = {}

local function note(...)
  local row = { ... }
  for i = 1, #row do row[i] = tostring(row[i]) end
  seen[#seen + 1] = row
end

local function fields(flat)
  local named = {}
  for i = 1, #flat, 2 do named[flat[i]] = flat[i + 1] end
  return named
end

local function lies_after(id, other)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  local other_ms, other_seq = string.match(other, '^(%d+)-(%d+)$')
  if ms ~= other_ms then return tonumber(ms) > tonumber(other_ms) end
  return tonumber(seq) > tonumber(other_seq)
end

local function look_at(stream, group)
  local pending = {}
  for _, one in ipairs(redis.call('XPENDING', stream, group.name, '-', '+', 1000000)) do pending[one[1]] = true end
  for _, entry in ipairs(redis.call('XRANGE', stream, '-', '+')) do
    local standing = 'settled'
    if pending[entry[1]] then
      standing = 'pending'
    elseif lies_after(entry[1], group['last-delivered-id']) then
      standing = 'unread'
    end
    pending[entry[1]] = nil
    local event = fields(entry[2])
    note('entry', stream, group.name, event.data or '', standing)
  end
  for _ in pairs(pending) do note('ghost', stream) end
end

for _, key in ipairs(redis.call('KEYS', state .. '*')) do
  note('state', string.sub(key, #state + 1), redis.call('GET', key))
end
note('records', #redis.call('KEYS', p .. 'record:*'))

local groups = redis.call('SMEMBERS', p .. 'groups')
local streams = {}
for _, kind in ipairs({ 'tick', 'tock', 'doom', 'order', 'step' }) do streams[#streams + 1] = 'events:' .. kind end
for _, group in ipairs(groups) do
  streams[#streams + 1] = p .. 'retry:' .. group
  note('lost', group, redis.call('HGET', p .. 'group:' .. group, 'lost') or 0)
end
for _, stream in ipairs(streams) do
  if redis.call('EXISTS', stream) == 1 then
    local found = redis.call('XINFO', 'GROUPS', stream)
    for _, info in ipairs(found) do look_at(stream, fields(info)) end
    for _, entry in ipairs(#found == 0 and redis.call('XRANGE', stream, '-', '+') or {}) do
      note('entry', stream, '', fields(entry[2]).data or '', 'unread')
    end
  end
end
for _, member in ipairs(redis.call('ZRANGE', p .. 'due', 0, -1)) do
  local id, stream = string.match(member, '^(%d+%-%d+) (.*)$')
  local entry = redis.call('XRANGE', p .. 'parked', id, id)[1]
  note('later', stream, entry and fields(entry[2]).data or '')
end
for _, entry in ipairs(redis.call('XRANGE', p .. 'dead', '-', '+')) do
  local letter = fields(entry[2])
  note('dead', letter.group or '', letter.data or '')
end
return seen
