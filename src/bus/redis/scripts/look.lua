-- The server's time, and of each stream the last entry and the first one. What is added later has a larger id. Whoever reads
-- on goes past what others trimmed, so it is counted here as well, just before: arguments are the prefix, and for each
-- stream its name and its first entry as it was ('': it is not asked for). The last answer is what was lost.
local time = redis.call('TIME')
local found, lost = { time[1] * 1000 + math.floor(time[2] / 1000) }, {}

local function one(...)
  local entries = redis.pcall(...)
  return not entries.err and entries[1] and entries[1][1]
end

for i = 2, #ARGV, 2 do
  local stream, known = ARGV[i], ARGV[i + 1]
  found[#found + 1] = one('XREVRANGE', stream, '+', '-', 'COUNT', 1) or '0-0'
  if known ~= '' then
    local first = one('XRANGE', stream, '-', '+', 'COUNT', 1)
    if (first or '0-0') ~= known then count_lost(stream, first, lost) end
    found[#found + 1] = first or '0-0'
  else
    found[#found + 1] = '0-0'
  end
end
found[#found + 1] = lost
return found
