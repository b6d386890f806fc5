-- Stores events unless their key was claimed before. Arguments: prefix, the claim's key, what was sent as a hash, ms that
-- the claim holds, count of events, events.
local key, body, window = take(), take(), take()
local before = redis.call('GET', key)
if before then return before == body and 'before' or 'other' end
local count = take()
local why = unpublishable(at, count) or barred('SET', key, body, 'PX', window)
if why then return refused(why) end
local failed = store_events(at, count)
if failed then return refused(failed) end
redis.call('SET', key, body, 'PX', window)
return 'stored'
