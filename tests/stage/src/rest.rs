//! Whether a server has come to rest: asked in one script, so that nothing can slip from one place to another meanwhile.

use crate::server::Server;

/// What is left to do, in words.
const LEFT: &str = r#"
local p = ARGV[1]
local left, groups = {}, 0
local function note(text) left[#left + 1] = text end
local function fields(flat)
  local named = {}
  for i = 1, #flat, 2 do named[flat[i]] = flat[i + 1] end
  return named
end
local streams = redis.call('SMEMBERS', p .. 'streams')
for _, group in ipairs(redis.call('SMEMBERS', p .. 'groups')) do
  local retry = p .. 'retry:' .. group
  streams[#streams + 1] = retry
  if redis.call('XLEN', retry) > 0 then note(retry .. ' has ' .. redis.call('XLEN', retry)) end
end
for _, stream in ipairs(streams) do
  if redis.call('EXISTS', stream) == 1 then
    local newest = fields(redis.call('XINFO', 'STREAM', stream))['last-generated-id']
    for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
      local group = fields(info)
      groups = groups + 1
      if group.pending > 0 then note(stream .. ': ' .. group.pending .. ' pending for ' .. group.name) end
      if group['last-delivered-id'] ~= newest then note(stream .. ': unread by ' .. group.name) end
    end
  end
end
if groups == 0 then note('there is no group yet') end
for name, count in pairs({ due = 'ZCARD', parked = 'XLEN', delayed = 'HLEN', owners = 'HLEN' }) do
  local found = redis.call(count, p .. name)
  if found > 0 then note(name .. ' has ' .. found) end
end
return left
"#;

/// What hosts with the usual names have left to do on `server`; nothing is left when it is empty.
pub fn left(server: &Server) -> Vec<String> {
    server.get(&["EVAL", LEFT, "0", "moontide:"])
}
