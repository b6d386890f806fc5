-- add(value, n): the JSON number in the text `value` (false: absent, counts as 0) plus the number `n`, as JSON text; or nil
-- and why not. Exact where both are whole: Lua's numbers are doubles, so whole numbers are added in two parts.

local PART = 1000000000
local EXACT = 9007199254740992

-- Thousand millions and the rest, both with the sign; nil where `text` is no whole number of 64 bits.
local function parts(text)
  local sign, digits = text:match('^(%-?)(%d+)$')
  if not digits or #digits > 19 then
    return nil
  end
  local high, low = tonumber('0' .. digits:sub(1, -10)), tonumber(digits:sub(-9))
  local last = sign == '-' and 854775808 or 854775807
  if high > 9223372036 or (high == 9223372036 and low > last) then
    return nil
  end
  if sign == '-' then
    return -high, -low
  end
  return high, low
end

-- The sum of two whole numbers in parts; nil where it has more than 64 bits.
local function add_parts(high, low)
  local carry = math.floor(low / PART)
  high, low = high + carry, low - carry * PART
  if high < 0 and low > 0 then
    high, low = high + 1, low - PART
  end
  local negative = high < 0 or low < 0
  high, low = math.abs(high), math.abs(low)
  if high > 9223372036 or (high == 9223372036 and low > (negative and 854775808 or 854775807)) then
    return nil
  end
  local sign = negative and '-' or ''
  if high == 0 then
    return sign .. string.format('%.0f', low)
  end
  return sign .. string.format('%.0f%09.0f', high, low)
end

-- The number that a JSON document is; nil where it is something else.
local function json_number(text)
  text = text:match('^[ \t\r\n]*(.-)[ \t\r\n]*$')
  local digits, rest = text:match('^%-?(%d+)(.*)$')
  if not digits or (#digits > 1 and digits:sub(1, 1) == '0') then
    return nil
  end
  rest = rest:gsub('^%.%d+', '', 1):gsub('^[eE][+-]?%d+$', '', 1)
  local number = rest == '' and tonumber(text)
  if not number or number - number ~= 0 then
    return nil
  end
  return number
end

local function number_text(number)
  if number % 1 == 0 and math.abs(number) <= EXACT then
    return (string.format('%.0f', number):gsub('^%-0$', '0'))
  end
  for digits = 15, 16 do
    local text = string.format('%.' .. digits .. 'g', number)
    if tonumber(text) == number then
      return text
    end
  end
  return string.format('%.17g', number)
end

local function add(value, n)
  local text = value or '0'
  n = tonumber(n)
  if n % 1 == 0 and math.abs(n) <= EXACT then
    local high, low = parts(text)
    if high then
      local rest = math.fmod(n, PART)
      local sum = add_parts(high + (n - rest) / PART, low + rest)
      if sum then
        return sum
      end
    end
  end
  local have = json_number(text)
  if not have then
    return nil, 'what it holds is not a number'
  end
  local sum = have + n
  if sum - sum ~= 0 then
    return nil, 'the sum is not a finite number'
  end
  return number_text(sum)
end
