-- Stores events, all or none. Arguments: prefix, count, events. Answers the ids (false: later), or why not.
local count = take()
local why = check_events(at, count) or unfit(parked, 'stream')
if why then return redis.error_reply('REFUSED ' .. why) end
local failed, ids = store_events(at, count)
if failed then return redis.error_reply('REFUSED ' .. failed) end
return ids
