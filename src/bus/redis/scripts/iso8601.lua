-- iso8601(ms): milliseconds since 1970 as text in UTC: 2026-11-21T00:24:00.000Z. Days become dates by counting from
-- 1 March of the year 0, so that the leap day is the last of its year.
local function iso8601(ms)
  local seconds = math.floor(ms / 1000)
  local days = math.floor(seconds / 86400)
  local second = seconds - days * 86400
  days = days + 719468
  local era = math.floor(days / 146097)
  local day = days - era * 146097
  local year = math.floor((day - math.floor(day / 1460) + math.floor(day / 36524) - math.floor(day / 146096)) / 365)
  day = day - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  local month = math.floor((5 * day + 2) / 153)
  day = day - math.floor((153 * month + 2) / 5) + 1
  month = month < 10 and month + 3 or month - 9
  year = year + era * 400 + (month <= 2 and 1 or 0)
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%03dZ', year, month, day, math.floor(second / 3600),
    math.floor(second / 60) % 60, second % 60, ms % 1000)
end
