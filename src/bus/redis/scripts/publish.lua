-- Stores events, all or none. Arguments: prefix, count, events. Answers the ids (false: later), or why not.
local count = take()
local why = check_events(at, count) or unfit(parked, 'stream')
why = why or barred('ZADD', due, 1, 'a') or barred('HINCRBY', delayed, 'a', 1)
why = why or barred('XADD', p .. 'bell', '*', 'a', 'b') or barred('SADD', p .. 'streams', 'a')
if why then return refused(why) end
local failed, ids = store_events(at, count)
if failed then return refused(failed) end
return ids
