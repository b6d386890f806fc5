#!lua
-- Counts entries of a stream without handing them out: stream, first, last, at most. Answers the count and the last one.
local entries = redis.call('XRANGE', ARGV[1], ARGV[2], ARGV[3], 'COUNT', ARGV[4])
local last = entries[#entries]
return { #entries, last and last[1] or '' }
