#!lua
-- The server's time, and the last entry of each stream. What is added later has a larger id.
local time = redis.call('TIME')
local found = { time[1] * 1000 + math.floor(time[2] / 1000) }
for i, stream in ipairs(ARGV) do
  local last = redis.pcall('XREVRANGE', stream, '+', '-', 'COUNT', 1)
  found[i + 1] = not last.err and last[1] and last[1][1] or '0-0'
end
return found
