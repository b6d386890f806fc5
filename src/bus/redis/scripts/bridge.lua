-- Stores messages of channels. Arguments: prefix, stream of dead letters, process, count; per message the lead that it needs or
-- '', the key that claims it or '', for how many milliseconds, 'E' and an event, or 'L', count of the rest, and the names and
-- values of a dead letter. Answers for each: S: stored; B: it was before; N: the lead is somebody else's; I and why not.
local me = take()
local count = take()

local function letter(from)
  local why = unfit(dead, 'stream')
  if why then return 'I' .. why end
  local id = redis.call('XADD', dead, '*', 'failed_at', iso8601(now), unpack(ARGV, from + 1, from + ARGV[from]))
  redis.call('HSET', ours, id, dead .. ' - ')
  return 'S'
end

local function event(from, key, window)
  local why = check_events(from, 1)
  if not why and key ~= '' then
    why = unfit(key, 'string')
    if not why and redis.call('EXISTS', key) == 1 then return 'B' end
  end
  if not why then why = store_events(from, 1) end
  if why then return 'I' .. why end
  if key ~= '' then redis.call('SET', key, '', 'PX', window) end
  return 'S'
end

local answers = {}
for i = 1, count do
  local lead, key, window, kind = take(), take(), take(), take()
  local from = at
  at = kind == 'E' and at + 4 + ARGV[at + 3] or at + 1 + ARGV[at]
  if lead ~= '' and redis.call('HGET', p .. 'lead', lead) ~= me then
    answers[i] = 'N'
  elseif kind == 'E' then
    answers[i] = event(from, key, window)
  else
    answers[i] = letter(from)
  end
end
return answers
