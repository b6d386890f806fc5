-- Ids of entries, as texts: `ms-seq`. Both parts have up to 20 digits, more than a number keeps.
local function id_parts(id)
  local ms, seq = string.match(id, '^(%d+)-?(%d*)$')
  return ms, seq == '' and '0' or seq
end

local function less_digits(a, b)
  if #a ~= #b then return #a < #b end
  return a < b
end

-- Whether entry `a` lies before entry `b`.
local function lies_before(a, b)
  local a_ms, a_seq = id_parts(a)
  local b_ms, b_seq = id_parts(b)
  if a_ms ~= b_ms then return less_digits(a_ms, b_ms) end
  return less_digits(a_seq, b_seq)
end

-- The id just before `id`.
local function just_before(id)
  local ms, seq = id_parts(id)
  if seq ~= '0' then return ms .. '-' .. string.format('%.0f', seq - 1) end
  if ms == '0' then return '0-0' end
  return string.format('%.0f', ms - 1) .. '-18446744073709551615'
end

-- Names and values that alternate, as a table.
local function by_name(flat)
  local found = {}
  for i = 1, #flat, 2 do found[flat[i]] = flat[i + 1] end
  return found
end

-- How the group stands on the stream, or nil.
local function standing(stream, group)
  local groups = redis.pcall('XINFO', 'GROUPS', stream)
  if groups.err then return nil end
  for _, one in ipairs(groups) do
    local found = by_name(one)
    if found.name == group then return found end
  end
end
