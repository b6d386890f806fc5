-- Puts the event of a foreign dead letter back into its stream, and removes the letter. Arguments: prefix, stream of dead
-- letters, letter, count of streams that it may name, these, the stream of its type ('': unknown), count of the rest, names
-- and values. Answers the stream; '': none is known; false: there is no such letter.
local letter, target, why = take(), nil, nil
if #redis.call('XRANGE', dead, letter, letter) == 0 then return false end
for _ = 1, take() do
  local stream = take()
  why = why or barred('TYPE', stream)
  -- Anybody may have a field that is called so: it names a stream if there is one.
  if not (why or target) and redis.call('TYPE', stream).ok == 'stream' then target = stream end
end
local of_its_type, count = take(), take()
target = target or of_its_type
if target == '' and not why then return '' end
why = why or unfit_target(target) or barred('XDEL', dead, '0-1') or barred('SADD', p .. 'streams', 'a')
if why then return refused(why) end
local id = redis.pcall('XADD', target, '*', unpack(ARGV, at, at + count - 1))
if type(id) == 'table' then return refused('stream "' .. target .. '" takes no entry: ' .. id.err) end
redis.call('XDEL', dead, letter)
if redis.call('SADD', p .. 'streams', target) == 1 then ring('stream', target) end
return target
