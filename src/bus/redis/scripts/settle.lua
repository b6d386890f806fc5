-- Settles a batch of runs, each whole or not at all; see `settle.rs` for the arguments and the answers. A run that the
-- server's ACL forbids is answered 'P': nothing of it was done, and it is not its fault.
--
-- Ownership is asked once for the batch. Then each run is checked and written before the next one is looked at, so that
-- it sees what those before it wrote. Nothing is acknowledged before everything is written, and the answers are kept
-- under the batch's number: whoever repeats it is answered the same.
local state, group, me = take(), take(), take()
local receipts, slot, number = take(), take(), take()
local standing = p .. 'group:' .. group

-- What belongs to the host is asked about once for the batch; what the runs name, when they do.
local why_not = barred('SET', p .. 'record:', 'a') or barred('ZADD', due, 1, 'a')
for _, key in ipairs({ parked, dead, p .. 'bell' }) do why_not = why_not or barred('XADD', key, '*', 'a', 'b') end
why_not = why_not or barred('XDEL', dead, '0-1') or barred('XRANGE', dead, '-', '+')
for _, key in ipairs({ receipts, standing, delayed, ours }) do
  why_not = why_not or barred('HINCRBY', key, 'a', 1) or barred('HSET', key, 'a', 'b')
end
why_not = why_not or barred('SADD', p .. 'streams', 'a')
if why_not then return redis.error_reply(why_not) end

local kept = redis.call('HGET', receipts, slot)
if kept then
  local of, answers = string.match(kept, '^(%d+) (.*)$')
  if tonumber(of) == number then
    local all = string.match(answers, '^D(%d+)$')
    if not all then return { now, 1, unpack(cjson.decode(answers)) } end
    local done = { now, 1 }
    for i = 1, all do done[i + 2] = 'D' end
    return done
  end
end

-- The streams of the batch, and what of them is ours: entry → times it was delivered. Asked for stretches in which
-- most entries are of this batch. A channel is no stream: everything of it is ours as long as we lead there.
local streams = {}
for i = 1, take() do
  local name, kind, last = take(), take(), take()
  local stream = { name = name, own = kind == 1, heard = kind == 2, last = last, mine = {}, done = {}, freed = false }
  local mine = stream.mine
  if stream.heard then
    local leader = redis.call('HGET', p .. 'lead', string.sub(name, #p + 9) .. ' ' .. group)
    if leader and 'moontide:' .. leader == me then setmetatable(mine, { __index = function() return 1 end }) end
  end
  local no = not stream.heard and (barred('XACK', name, group, '0-1') or barred('XCLAIM', name, group, me, 0, '0-1'))
  if no then return redis.error_reply(no) end
  for _ = 1, take() do
    local first, to, in_hand = take(), take(), take()
    local pending = stream.heard and {} or redis.pcall('XPENDING', name, group, first, to, in_hand, me)
    if pending.err then
      if not string.find(pending.err, '^NOGROUP') and not string.find(pending.err, '^WRONGTYPE') then
        return redis.error_reply(pending.err)
      end
      stream.gone = true
    else
      for _, entry in ipairs(pending) do mine[entry[1]] = entry[4] end
      stream.cut = stream.cut or #pending == in_hand
    end
  end
  streams[i] = stream
end

-- How often an entry was delivered that the stretches did not show; nil: it is not ours.
local function single(stream, entry)
  if not stream.cut then return nil end
  local found = redis.call('XPENDING', stream.name, group, entry, entry, 1, me)[1]
  return found and found[4]
end

local function still(kind, key)
  local value = redis.call('GET', key)
  if kind == '-' then
    at = at + 1
    return not value
  elseif kind == '=' then
    return value == take()
  end
  local length, hash = take(), take()
  return value and #value == length and redis.sha1hex(value) == hash
end

-- A delivery's arguments: stream, entry, times delivered, 1 where it has a mark, the dead letter that it replays or
-- '', verdict and what belongs to it.
local function after_delivery(from)
  local verdict = ARGV[from + 5]
  if verdict == 'R' or verdict == 'D' then return from + 8 + ARGV[from + 7] end
  return from + 6
end

local function acknowledge(stream, from)
  local entry, done = ARGV[from + 1], stream.done
  stream.mine[entry] = false
  done[#done + 1] = entry
  if ARGV[from + 3] == 1 then
    redis.call('HDEL', p .. 'marks:' .. group, stream.name .. '/' .. entry)
  end
end

-- A replay ended.
local function forget_letter(letter)
  redis.call('XDEL', dead, letter)
  seal(letter)
  if let_go(letter) then redis.call('HINCRBY', standing, 'dead', -1) end
end

-- It goes back as it came: nobody's, with the same count, and its mark counts no death.
local function give_back(stream, from)
  local entry = ARGV[from + 1]
  redis.call('XCLAIM', stream.name, group, 'moontide:free', 0, entry, 'RETRYCOUNT', ARGV[from + 2], 'JUSTID')
  stream.mine[entry] = false
  stream.freed = true
  if ARGV[from + 3] == 1 then
    local marks, field = p .. 'marks:' .. group, stream.name .. '/' .. entry
    local mark = redis.call('HGET', marks, field)
    if mark then redis.call('HSET', marks, field, string.match(mark, '^%d+') .. ' 0') end
  end
end

-- Applies a verdict; returns the dead letter, if the delivery became one. `record`, `steps`: the keys of the run's, or ''.
local function finish(from, record, steps)
  local stream, replay, verdict = streams[ARGV[from]], ARGV[from + 4], ARGV[from + 5]
  if verdict == 'F' then return give_back(stream, from) end
  local letter
  if verdict == 'R' then
    park(p .. 'retry:' .. group, ARGV[from + 6], from + 8, from + 7 + ARGV[from + 7])
  elseif verdict == 'D' then
    local original, last = ARGV[from + 6], from + 7 + ARGV[from + 7]
    letter = redis.call('XADD', dead, '*', 'failed_at', iso8601(now), unpack(ARGV, from + 8, last))
    if original ~= '' then redis.call('HSET', originals, letter, original) end
    redis.call('HSET', ours, letter, dead .. ' ' .. (record ~= '' and record or '-') .. ' ' .. group)
    redis.call('HINCRBY', standing, 'dead', 1)
    if steps ~= '' then
      -- They are this letter's now, and not those of one that it replaces.
      redis.call('HDEL', lettered, replay)
      redis.call('HSET', lettered, letter, steps)
      redis.call('PERSIST', steps)
    end
  end
  if replay ~= '' then
    if verdict == 'S' then
      redis.call('HDEL', replayed, replay)
    elseif verdict ~= 'R' then
      forget_letter(replay)
    end
  end
  acknowledge(stream, from)
  return letter
end

-- Whether a record holds its key against a run that replays the letter `pass` (or ''). One that names a letter does while
-- the letter is there, and after we removed it; not when others took it away to handle its event anew.
local function holds(record, pass)
  local kind, letter = string.match(record, '^(%a+) (%S+)')
  if kind == 'committed' then return true end
  return letter ~= pass and (kind ~= 'dead' or is_there(letter))
end

-- The run's key is taken: its deliveries are done, its effects are dropped.
local function taken(by, token, from, count)
  for _ = 1, count do
    if ARGV[from + 4] ~= '' then redis.call('HDEL', replayed, ARGV[from + 4]) end
    acknowledge(streams[ARGV[from]], from)
    from = after_delivery(from)
  end
  by = string.match(by, '^committed (.*)$') or string.match(by, '^%a+ %S+ (.*)$') or by
  return by == token and 'A' or 'X' .. by
end

-- What the writes at argument `from` come to: keys and values in their order, or why they cannot be done.
local function plan(from, count)
  local puts, latest = {}, {}
  for i = 1, count do
    local key, change, value = ARGV[from], ARGV[from + 1], ARGV[from + 2]
    local why = unfit(key, 'string')
    if string.sub(key, 1, #p) == p then
      why = 'state key "' .. string.sub(key, #state + 1) .. '" belongs to the host; choose another'
    end
    if why then return why end
    if change == 'a' then
      local have = latest[key]
      if have == nil then have = redis.call('GET', key) end
      local sum
      sum, why = add(have, tonumber(value))
      if not sum then return 'add to state key "' .. string.sub(key, #state + 1) .. '": ' .. why end
      value = sum
    elseif change == 'd' then
      value = false
    end
    latest[key] = value
    puts[i] = { key, value, change == 'a' and 'keep' or ARGV[from + 3] }
    from = from + 4
  end
  return nil, puts, from
end

local function put(puts)
  for _, write in ipairs(puts) do
    local key, value, ttl = write[1], write[2], write[3]
    if not value then
      redis.call('DEL', key)
      kinds[key] = 'none'
    else
      if ttl == 'keep' then
        redis.call('SET', key, value, 'KEEPTTL')
      elseif ttl == '' then
        redis.call('SET', key, value)
      else
        redis.call('SET', key, value, 'PX', ttl)
      end
      kinds[key] = 'string'
    end
  end
end

-- Members of the group's set that have the `count` ids from argument `from` on.
local function named(from, count)
  local found = {}
  for i = from, from + count - 1 do
    local id = #ARGV[i] .. ':' .. ARGV[i] .. ' '
    for _, member in ipairs(redis.call('ZRANGE', names(group), '[' .. id, '(' .. id .. '\255', 'BYLEX')) do
      found[#found + 1] = member
    end
  end
  return found
end

-- What the member of the group's set stands for is not emitted after all, unless it was already.
local function take_back(member)
  local length, rest = string.match(member, '^(%d+):(.*)$')
  local waiting = string.sub(rest, length + 2)
  local id, stream = string.match(waiting, '^(%S+) (.*)$')
  redis.call('ZREM', names(group), member)
  redis.call('HDEL', owners, id)
  if redis.call('ZREM', due, waiting) == 0 then return end
  redis.call('XDEL', parked, id)
  if redis.call('HINCRBY', delayed, stream, -1) <= 0 then redis.call('HDEL', delayed, stream) end
end

-- The group can take back what is for later. At argument `from`: of how many events, then the number and the id of each.
local function own(later, from)
  for i = from + 1, from + 2 * ARGV[from], 2 do
    local waiting, id = later[ARGV[i]], ARGV[i + 1]
    local member = #id .. ':' .. id .. ' ' .. waiting
    redis.call('ZADD', names(group), 0, member)
    redis.call('HSET', owners, string.match(waiting, '^%S+'), group .. ' ' .. member)
  end
end

-- Why the group cannot take back, or be given to take back, what it emits for later.
local function unfit_names(cancels)
  local why = barred('HDEL', owners, 'a') or barred('ZADD', names(group), 0, 'a')
  -- Who may not say what is theirs may emit it all the same.
  if why and not cancels then return nil end
  return why or unfit(names(group), 'zset') or unfit(owners, 'hash')
end

-- Why the host's own keys cannot take what a run leaves besides its effects.
local function unfit_own(retries, dies, steps)
  local why
  if retries then why = unfit(parked, 'stream') or unfit(due, 'zset') or unfit(delayed, 'hash') end
  if dies then why = why or unfit(dead, 'stream') end
  for _, key in ipairs(dies and { ours, originals, standing } or {}) do why = why or unfit(key, 'hash') end
  if steps ~= '' then
    why = why or barred('DEL', steps) or barred('PERSIST', steps) or barred('HSET', lettered, 'a', 'b')
    if dies then why = why or unfit(lettered, 'hash') end
  end
  return why
end

local function run()
  local count = ARGV[at]
  local deliveries = at + 1
  local place = deliveries
  local ours, goes_back, retries, dies, commits = true, true, false, false, false
  for _ = 1, count do
    local stream, entry, verdict = streams[ARGV[place]], ARGV[place + 1], ARGV[place + 5]
    if stream.gone then return 'R' end
    local times = stream.mine[entry]
    if times == nil then times = single(stream, entry) end
    ours = ours and times == ARGV[place + 2]
    goes_back = goes_back and verdict == 'F'
    retries = retries or verdict == 'R'
    dies = dies or verdict == 'D'
    commits = commits or verdict == 'C'
    place = after_delivery(place)
  end
  if not ours then return 'F' end

  at = place + 1
  local moved
  for _ = 1, ARGV[place] do
    local name, kind = take(), take()
    if not still(kind, state .. name) and not moved then moved = name end
  end
  if moved and not goes_back then return 'C' .. moved end

  local record, token, window, pass, steps = unpack(ARGV, at, at + 4)
  if record ~= '' then
    local held = redis.call('GET', record)
    if held and holds(held, pass) then
      -- Those that stay for ever are a dead letter's.
      if steps ~= '' and redis.call('PTTL', steps) >= 0 then redis.call('DEL', steps) end
      return taken(held, token, deliveries, count)
    end
  end

  local events = ARGV[at + 5]
  local first_event = at + 6
  local why, puts
  local writes = first_event
  if events > 0 then
    why, writes = check_events(first_event, events)
    if why then return 'I' .. why end
  end
  local cancels = writes + 1
  if ARGV[writes] ~= 0 then
    why, puts, cancels = plan(writes + 1, ARGV[writes])
  end
  local mine = cancels and cancels + 1 + ARGV[cancels]
  if mine and ARGV[cancels] + ARGV[mine] > 0 then why = unfit_names(ARGV[cancels] > 0) end
  if retries or dies or steps ~= '' then why = why or unfit_own(retries, dies, steps) end
  if why then return 'I' .. why end

  local taken_back, later, _ = named(cancels + 1, ARGV[cancels]), nil, nil
  if events > 0 then
    why, _, later = store_events(first_event, events)
    if why then return 'I' .. why end
  end
  for _, member in ipairs(taken_back) do take_back(member) end
  if owns and ARGV[mine] > 0 then own(later, mine) end
  if puts then put(puts) end
  local letter
  place = deliveries
  for _ = 1, count do
    letter = finish(place, record, steps) or letter
    place = after_delivery(place)
  end
  if record ~= '' then
    local value = letter and 'dead ' .. letter .. ' ' .. token or 'committed ' .. token
    redis.call('SET', record, value, 'PX', window)
  end
  if commits and steps ~= '' then redis.call('DEL', steps) end
  return letter and 'D' .. letter or 'D'
end

-- How many arguments each run has stands at the end.
local answers, all_done = {}, true
local runs = take()
for i = 1, runs do
  local next_run = at + ARGV[#ARGV - runs + i]
  local fine, answer = pcall(run)
  if not fine then
    answer = tostring(type(answer) == 'table' and answer.err or answer)
    local acl = string.find(answer, "executing the script can't", 1, true) or string.find(answer, 'ACL failure', 1, true)
    answer = acl and 'P' .. answer or 'Ithe server script failed: ' .. answer
  elseif string.find(answer, '^INOPERM') then
    answer = 'P' .. string.sub(answer, 2)
  end
  answers[i] = answer
  all_done = all_done and answer == 'D'
  at = next_run
end

-- The entry before `id`.
local function before(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  if seq ~= '0' then return ms .. '-' .. string.format('%.0f', seq - 1) end
  return string.format('%.0f', ms - 1) .. '-18446744073709551615'
end

local freed = false
for _, stream in ipairs(streams) do
  local done = stream.heard and {} or stream.done
  for first = 1, #done, 1000 do
    local last = math.min(first + 999, #done)
    redis.call('XACK', stream.name, group, unpack(done, first, last))
    if stream.own then redis.call('XDEL', stream.name, unpack(done, first, last)) end
  end
  if #done > 0 and not stream.own then
    local pending = redis.call('XPENDING', stream.name, group)
    local mark = pending[1] == 0 and stream.last or before(pending[2])
    redis.call('HSET', standing, 'mark:' .. stream.name, mark)
  end
  freed = freed or stream.freed
end
if freed then ring('freed', group) end

redis.call('HSET', receipts, slot, number .. ' ' .. (all_done and 'D' .. #answers or cjson.encode(answers)))
if number % 1000 == 1 then redis.call('EXPIRE', receipts, 604800) end
return { now, 0, unpack(answers) }
