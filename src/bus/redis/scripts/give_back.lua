-- Gives entries back as they came. Arguments: id and count of each. Answers how many were still ours.
local ours = still_ours(5)
for count, ids in pairs(by_count(ours, 0)) do
  claim('moontide:free', ids, count, 'JUSTID')
  for _, id in ipairs(ids) do close_mark(id, false) end
end
if #ours > 0 then redis.call('XADD', p .. 'bell', 'MAXLEN', '~', 1000, '*', 'freed', group) end
return #ours
