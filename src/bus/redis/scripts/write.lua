-- An operator's writes to state, all or none. ARGV: per write its kind (set, delete, add), key, value and time to live in
-- milliseconds ('' for none). Answers 1 and, per write, whether the key existed; or 0, which write cannot be done, and why.

local planned, order, answer = {}, {}, { 1 }

local function now(key)
  if planned[key] then
    return planned[key]
  end
  local kind = redis.call('TYPE', key).ok
  if kind ~= 'string' and kind ~= 'none' then
    return nil, 'it is a ' .. kind .. ' of somebody else, not a text'
  end
  order[#order + 1] = key
  planned[key] = { value = redis.call('GET', key), expires = 'keep' }
  return planned[key]
end

for at = 1, #ARGV, 4 do
  local kind, key, value, ttl = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local plan, wrong = now(key)
  if not plan then
    return { 0, (at - 1) / 4, wrong }
  end
  answer[#answer + 1] = plan.value and 1 or 0
  if kind == 'set' then
    plan.value, plan.expires = value, ttl
  elseif kind == 'delete' then
    plan.value, plan.expires = false, ''
  else
    plan.value, wrong = add(plan.value, value)
    if not plan.value then
      return { 0, (at - 1) / 4, wrong }
    end
  end
end

for _, key in ipairs(order) do
  local plan = planned[key]
  if not plan.value then
    redis.call('DEL', key)
  elseif plan.expires == 'keep' then
    redis.call('SET', key, plan.value, 'KEEPTTL')
  elseif plan.expires == '' then
    redis.call('SET', key, plan.value)
  else
    redis.call('SET', key, plan.value, 'PX', plan.expires)
  end
end
return answer
