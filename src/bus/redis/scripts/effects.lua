#!lua
-- What settle and publish share: the arguments, the server's time, and how events are stored, now or later.
-- An event's arguments: stream, delay in ms or '-', 1 where the stream may be new, and 2 for each of the last parts of the
-- rest that are channels and messages; count of the rest, names and values, channels and messages.
-- All arguments as one list, packed, or as they are.
local ARGV = #ARGV == 1 and cmsgpack.unpack(ARGV[1]) or ARGV
local p = ARGV[1]
local at = 2
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function take()
  at = at + 1
  return ARGV[at - 1]
end

local parked, due, delayed = p .. 'parked', p .. 'due', p .. 'delayed'
-- Why the server's ACL does not let us do this; nil: it does. Asked before anything is written, since nothing is taken back.
local function barred(command, key, ...)
  if redis.acl_check_cmd(command, key, ...) then return nil end
  return 'NOPERM no permission to ' .. command .. ' the key "' .. key .. '"'
end

-- What cannot be done, as an error: forbidden now, or wrong.
local function refused(why)
  return redis.error_reply(string.find(why, '^NOPERM') and why or 'REFUSED ' .. why)
end

-- What a group emitted for later, so that it can take it back: a set per group whose members are the event's id, after its
-- length, and the member of `due`; and for each parked entry its group and that member.
local owners = p .. 'owners'
local function names(group) return p .. 'named:' .. group end
-- Rights that name the keys one by one may not name this one: then nothing can be taken back.
local owns = not barred('HDEL', owners, 'a')

-- The entry is not waiting any more: nobody can take it back.
local function disown(id)
  local owner = owns and redis.call('HGET', owners, id)
  if not owner then return end
  local group, member = string.match(owner, '^(%S+) (.*)$')
  redis.call('ZREM', names(group), member)
  redis.call('HDEL', owners, id)
end

-- Types of keys, as they are by now.
local kinds = {}

-- Why nothing can be written to `key` as a `kind`; nil: it can.
local function unfit(key, kind)
  local found = kinds[key]
  if not found then
    local why
    if kind == 'stream' then
      why = barred('XADD', key, '*', 'a', 'b')
    elseif kind == 'string' then
      why = barred('SET', key, 'a') or barred('DEL', key)
    end
    if why then return why end
    found = redis.call('TYPE', key).ok
    kinds[key] = found
  end
  if found ~= 'none' and found ~= kind then
    return 'key "' .. key .. '" holds a ' .. found .. ', not a ' .. kind .. '; rename one of them'
  end
end

local function unfit_target(stream)
  if string.sub(stream, 1, #p) == p then
    return 'stream "' .. stream .. '" belongs to the host; emit to another one'
  end
  return unfit(stream, 'stream')
end

-- The first and the last argument of what is published of the event at argument `from`.
local function said(from)
  local last = from + 3 + ARGV[from + 3]
  return last + 1 - math.floor(ARGV[from + 2] / 2), last
end

-- Why the `count` events at argument `from` cannot be stored, and the argument after them.
local function check_events(from, count)
  for _ = 1, count do
    local why = unfit_target(ARGV[from])
    local first, last = said(from)
    for channel = first, last, 2 do why = why or barred('PUBLISH', ARGV[channel], 'a') end
    if why then return why end
    from = last + 1
  end
  return nil, from
end

local function ring(what, name)
  redis.call('XADD', p .. 'bell', 'MAXLEN', '~', 1000, '*', what, name)
end

-- The time that due times are counted by: the server's, and all that its clock was set back by while something waited. What
-- waits would else wait for as long once more.
local function due_clock()
  local key = p .. 'due:clock'
  -- Rights that name the keys one by one may not name this one.
  if barred('HSET', key, 'seen', now) then return now end
  local known = redis.call('HMGET', key, 'seen', 'ahead')
  local seen, ahead = tonumber(known[1]) or 0, tonumber(known[2]) or 0
  local back = seen - now
  if back > 1000 then ahead = ahead + back end
  if math.abs(back) > 1000 then
    redis.call('HSET', key, 'seen', string.format('%.0f', now), 'ahead', string.format('%.0f', ahead))
  end
  return now + ahead
end

-- Keeps the fields from argument `first` to `last` until they are due in `stream`, with what is to be published then. Returns
-- what it is called in `due`.
local function park(stream, delay, first, last, mirrors)
  local id
  if mirrors then
    id = redis.call('XADD', parked, '*', 'moontide-mirrors', cmsgpack.pack(mirrors), unpack(ARGV, first, last))
  else
    id = redis.call('XADD', parked, '*', unpack(ARGV, first, last))
  end
  redis.call('ZADD', due, due_clock() + delay, id .. ' ' .. stream)
  redis.call('HINCRBY', delayed, stream, 1)
  return id .. ' ' .. stream
end

-- Stores the `count` events at argument `from`, all or none; returns why not, their ids (false: later), and what those for later
-- are called in `due`.
local function store_events(from, count)
  if count == 1 and ARGV[from + 1] == '-' and ARGV[from + 2] == 0 then
    local stream = ARGV[from]
    local id = redis.pcall('XADD', stream, '*', unpack(ARGV, from + 4, from + 3 + ARGV[from + 3]))
    if type(id) == 'table' then return 'stream "' .. stream .. '" takes no entry: ' .. id.err end
    kinds[stream] = 'stream'
    return nil, { id }
  end
  local ids, place = {}, from
  for i = 1, count do
    local stream, first_said, last = ARGV[place], said(place)
    ids[i] = false
    if ARGV[place + 1] == '-' then
      local id = redis.pcall('XADD', stream, '*', unpack(ARGV, place + 4, first_said - 1))
      if type(id) == 'table' then
        place = from
        for j = 1, i - 1 do
          if ids[j] then redis.call('XDEL', ARGV[place], ids[j]) end
          place = place + 4 + ARGV[place + 3]
        end
        return 'stream "' .. stream .. '" takes no entry: ' .. id.err
      end
      ids[i] = id
      kinds[stream] = 'stream'
    end
    place = last + 1
  end
  local later = {}
  place = from
  for i = 1, count do
    local stream, first_said, last = ARGV[place], said(place)
    if ids[i] then
      for channel = first_said, last, 2 do redis.call('PUBLISH', ARGV[channel], ARGV[channel + 1]) end
    else
      local mirrors = first_said <= last and { unpack(ARGV, first_said, last) } or nil
      later[i] = park(stream, ARGV[place + 1], place + 4, first_said - 1, mirrors)
    end
    if ARGV[place + 2] % 2 == 1 then
      redis.call('SADD', p .. 'published', stream)
      if redis.call('SADD', p .. 'streams', stream) == 1 then ring('stream', stream) end
    end
    place = last + 1
  end
  return nil, ids, later
end

-- Why a call that does nothing else cannot store the `count` events at argument `from`: wrong, or forbidden.
local function unpublishable(from, count)
  return check_events(from, count) or unfit(parked, 'stream')
    or barred('ZADD', due, 1, 'a') or barred('HINCRBY', delayed, 'a', 1)
    or barred('XADD', p .. 'bell', '*', 'a', 'b') or barred('SADD', p .. 'streams', 'a')
end
