-- Stores events, all or none. Arguments: prefix, count, events. Answers the ids (false: later), or why not.
local count = take()
local why = unpublishable(at, count)
if why then return refused(why) end
local failed, ids = store_events(at, count)
if failed then return refused(failed) end
return ids
