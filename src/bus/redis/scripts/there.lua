-- Which letters lie in their streams. Arguments: prefix, stream of dead letters, letters. Answers 1 or 0 for each.
local found = {}
while at <= #ARGV do found[#found + 1] = is_there(take()) and 1 or 0 end
return found
