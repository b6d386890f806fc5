-- Moves what is due into its streams. Arguments: prefix, how much at most, ms until what cannot be moved is tried again.
-- Answers how much was looked at, ms until the next is due (-1: nothing waits), and what could not be moved: stream and
-- reason, alternating.
local most, later = take(), tonumber(take())
if redis.call('EXISTS', due) == 0 then return { 0, -1, {} } end
now = due_clock()

local function forget(member, id, stream)
  redis.call('XDEL', parked, id)
  redis.call('ZREM', due, member)
  disown(id)
  if redis.call('HINCRBY', delayed, stream, -1) <= 0 then redis.call('HDEL', delayed, stream) end
end

local function move(member, id, stream)
  local entry = redis.call('XRANGE', parked, id, id)[1]
  local fields = entry and entry[2]
  if fields and fields[1] == 'moontide-mirrors' then
    redis.call('XADD', stream, '*', unpack(fields, 3))
    local mirrors = cmsgpack.unpack(fields[2])
    -- It is in its stream: what cannot be published any more is no reason to move it again.
    for channel = 1, #mirrors, 2 do redis.pcall('PUBLISH', mirrors[channel], mirrors[channel + 1]) end
  elseif fields then
    redis.call('XADD', stream, '*', unpack(fields))
  end
  forget(member, id, stream)
  if not entry then error({ err = 'its body is gone from ' .. parked }) end
  if string.sub(stream, 1, #p) ~= p and redis.call('SADD', p .. 'streams', stream) == 1 then
    redis.call('XADD', p .. 'bell', 'MAXLEN', '~', 1000, '*', 'stream', stream)
  end
end

local members = redis.call('ZRANGE', due, '-inf', string.format('%.0f', now), 'BYSCORE', 'LIMIT', 0, most)
local stuck = {}
for _, member in ipairs(members) do
  local id, stream = string.match(member, '^(%d+%-%d+) (.*)$')
  local moved, why
  if id then
    moved, why = pcall(move, member, id, stream)
  else
    moved, why, stream = false, 'it does not name an entry and a stream', member
  end
  if not moved then
    -- Only where it is still there.
    redis.call('ZADD', due, 'XX', now + later, member)
    stuck[#stuck + 1] = stream
    stuck[#stuck + 1] = tostring(type(why) == 'table' and why.err or why)
  end
end
local next = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')[2]
return { #members, next and math.max(0, next - now) or -1, stuck }
