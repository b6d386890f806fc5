-- Why nothing can be done with a group: it is being handed over, and not as in `unless`. Nil: it is not.
local function being_moved(hash, unless)
  local moving = redis.call('HGET', hash, 'moving')
  if moving and moving ~= unless then
    return 'a group is being handed over and that has not ended; end it with `moontide groups move ' .. moving .. '`'
  end
end
